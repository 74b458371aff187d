// "Change" leads to what decides a line of the plan: data-lead has its controls, the first one most. Settings are in
// Advanced, which is opened for them; the first control gets the focus, and all of them are marked until it goes elsewhere.
const ids = { base: 'base', kind: 'kind', quality: 'quality', files: 'files', trigger: 'trigger' };
const idOf = (name) => ids[name] ?? `set-${name.replaceAll('.', '-')}`;
const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;

function unfold(id) {
  const button = document.querySelector(`#${id} > button`);
  const content = document.querySelector(`#${id} > [data-testid="accordion-content"]`);
  if (button && content && getComputedStyle(content).display === 'none') button.click();
}

async function found(id) {
  for (const until = Date.now() + 30_000; Date.now() < until;) {
    const element = document.getElementById(id);
    if (element?.offsetParent) return element;
    await new Promise((ready) => setTimeout(ready, 50));
  }
}

async function lead(names) {
  const wanted = names.split(' ').map(idOf);
  if (wanted[0].startsWith('set-')) {
    unfold('advanced');
    window.showAllSettings?.();
  }
  const from = document.activeElement;
  for (let tries = 0; tries < 30; tries += 1) { // a control may be built twice while Advanced opens
    const first = await found(wanted[0]);
    const there = first?.contains(document.activeElement);
    if (!first || !(there || [document.body, from].includes(document.activeElement))) return;
    if (!there || !first.hasAttribute('data-led')) {
      const field = first.querySelector('input:checked, input:not([type=radio]), textarea, select, button');
      first.scrollIntoView({ block: 'center', behavior: calm ? 'auto' : 'smooth' });
      field?.focus({ preventScroll: true });
      unmark();
      for (const id of wanted) document.getElementById(id)?.setAttribute('data-led', '');
    }
    await new Promise((ready) => setTimeout(ready, 100));
  }
}

function unmark() {
  document.querySelectorAll('[data-led]').forEach((element) => element.removeAttribute('data-led'));
}

document.addEventListener('focusin', (event) => {
  if (!event.target.closest('[data-led]')) unmark();
});

document.addEventListener('click', (event) => {
  const button = event.target.closest?.('[data-lead]');
  if (button) lead(button.dataset.lead);
});
