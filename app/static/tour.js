
// The first-run tour: a note in the card of each step, one after the other, that covers nothing, holds nobody up and
// takes no focus from who is typing. Arrow keys and Enter go on, Esc ends it; it comes up by itself once.
const SEEN = 'lora-sd-tour';
const part = (tag, attributes, ...children) => {
  const made = Object.assign(document.createElement(tag), attributes);
  made.append(...children);
  return made;
};
const seen = () => { try { return localStorage.getItem(SEEN); } catch { return 'yes'; } };
const remember = () => { try { localStorage.setItem(SEEN, 'yes'); } catch { /* it comes again, then */ } };
let note, place;

function end() {
  const focused = note?.contains(document.activeElement);
  const { at } = props.value.steps[place] ?? {};
  clear();
  remember();
  if (focused) document.querySelector(`#${at} :is(input, textarea, button), button#${at}`)?.focus({ preventScroll: true });
}

function clear() {
  note?.closest('.card')?.classList.remove('toured');
  note?.remove();
  note = undefined;
}

async function step(number, byHand) {
  const { steps, texts } = props.value;
  const { at, title, text } = steps[number];
  const card = (await found(at))?.closest('.card');
  if (!card) return;
  clear();
  place = number;
  const button = (name, words, act) => {
    const made = part('button', { type: 'button', className: `act ${name}`, id: `tour-${name}`, textContent: words });
    made.addEventListener('click', act);
    return made;
  };
  const last = number === steps.length - 1;
  note = part('section', { className: 'tour', id: 'tour' },
    part('b', { textContent: title }), part('p', { textContent: text }),
    part('div', { className: 'actions' },
      button('next', last ? texts.done : texts.next, () => (last ? end() : step(number + 1, true))),
      ...(number ? [button('back', texts.back, () => step(number - 1, true))] : []),
      ...(last ? [] : [button('close', texts.close, end)])));
  note.setAttribute('aria-label', texts.name);
  note.dataset.step = number + 1;
  note.querySelector('#tour-next').classList.add('primary');
  note.addEventListener('keydown', ({ key }) => {
    if (key === 'ArrowRight' && !last) step(number + 1, true);
    if (key === 'ArrowLeft' && number) step(number - 1, true);
  });
  (card.querySelector('.go') ?? card.querySelector('h3').closest('.block')).after(note);
  card.classList.add('toured');
  if (!byHand) return;
  note.querySelector('#tour-next').focus({ preventScroll: true });
  note.scrollIntoView({ block: 'nearest', behavior: calm ? 'auto' : 'smooth' });
}

window.startTour = () => step(0, true);
watch('value', () => {
  if (props.value?.fresh && !seen() && !note) step(0, false);
});
document.addEventListener('keydown', (event) => {
  const elsewhere = event.target !== document.body && !note?.contains(event.target);
  if (note && event.key === 'Escape' && !elsewhere) end();
});
document.addEventListener('click', (event) => {
  if (note && event.target.closest?.('#start')) end();
});
// pictures have come: the next step
new MutationObserver(() => {
  if (note && place === 0 && document.querySelector('#pictures .strip img') && !note.contains(document.activeElement)) step(1, false);
}).observe(document.body, { childList: true, subtree: true });
