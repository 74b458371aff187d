// The search of Advanced, which shows of the controls below it only those that match; and the marks of changed ones.
// props.value: {texts, names: {"set-lora-rank": "lora.rank network_dim"}}; #changed tells which settings are changed.
const advanced = document.getElementById('advanced');
const search = element.querySelector('input[type=search]');
const only = element.querySelector('input[type=checkbox]');
const told = element.querySelector('[role=status]');

const changed = () => new Set([...document.querySelectorAll('#changed [data-changed]')].map(
  (item) => `set-${item.dataset.changed.replaceAll('.', '-')}`));

function texts() {
  const { texts } = props.value;
  element.querySelector('.find span').textContent = texts.search;
  element.querySelector('.only span').textContent = texts.only;
  search.placeholder = texts.hint;
}

function wordsOf(control) {
  const values = [...control.querySelectorAll('input, textarea')].filter((field) => field.type !== 'checkbox');
  return [props.value.names[control.id], control.textContent, ...values.map((field) => field.value)].join(' ').toLowerCase();
}

function mark(control, isChanged) {
  control.classList.toggle('is-changed', isChanged);
  const old = control.querySelector(':scope > .back-here');
  if (!isChanged) return old?.remove();
  if (old) return;
  const button = document.createElement('button');
  Object.assign(button, { type: 'button', className: 'back-here', textContent: props.value.texts.back });
  button.addEventListener('click', () => {
    const name = control.id.slice('set-'.length).replaceAll('-', '.');
    document.querySelector(`#changed [data-changed="${name}"] .back`)?.click();
  });
  control.append(button);
}

function show() {
  const { texts } = props.value;
  const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const mine = changed();
  let count = 0;
  for (const group of advanced.querySelectorAll('.group')) {
    let here = 0;
    for (const control of group.querySelectorAll('[id^="set-"]')) {
      const isChanged = mine.has(control.id);
      mark(control, isChanged);
      const words = wanted.length ? wordsOf(control) : '';
      const fits = wanted.every((word) => words.includes(word)) && (isChanged || !only.checked);
      control.classList.toggle('unfound', !fits);
      here += fits;
    }
    group.classList.toggle('unfound', !here);
    count += here;
  }
  const filtered = wanted.length || only.checked;
  const none = only.checked && !mine.size ? texts.unchanged : texts.none;
  told.textContent = !filtered ? '' : !count ? none : count === 1 ? texts.one : texts.many.replace('{n}', count);
}

window.showAllSettings = () => {
  search.value = '';
  only.checked = false;
  show();
};

texts();
watch('value', texts);
search.addEventListener('input', show);
only.addEventListener('change', show);
search.addEventListener('keydown', (event) => {
  if (event.key === 'Escape' && search.value) {
    search.value = '';
    show();
  }
});
// the controls are built after this one, and the list of changes moves
const concerns = (change) => change.target.closest('#changed')
  || [...change.addedNodes].some((node) => node.querySelector?.('[id^="set-"]'));
let later;
new MutationObserver((changes) => {
  if (!changes.some(concerns)) return;
  clearTimeout(later);
  later = setTimeout(show, 30);
}).observe(advanced, { childList: true, subtree: true, attributes: true, attributeFilter: ['data-changed'] });
show();
