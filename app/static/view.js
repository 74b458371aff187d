// Builds the page part that `props.value` describes ({tag, attributes, children} or text) out of DOM calls,
// reusing the nodes that are there. Clicks on [data-act] go to Python with the fields of their .ask; [data-after] opens a comparison.
// A slider in [data-cut] sets its --cut.
// news.js draws here, too: what it brought before this view was there lies in `shownViews`.

function make(tree, old) {
  if (typeof tree === 'string') {
    if (old?.nodeType !== Node.TEXT_NODE) return document.createTextNode(tree);
    if (old.data !== tree) old.data = tree;
    return old;
  }
  const node = old?.localName === tree.tag ? old : document.createElement(tree.tag);
  for (const name of node.getAttributeNames()) {
    if (!(name in tree.attributes) && name !== 'open') node.removeAttribute(name);
  }
  for (const [name, value] of Object.entries(tree.attributes)) {
    if (node.getAttribute(name) !== value) node.setAttribute(name, value);
  }
  fill(node, tree.children);
  return node;
}

function fill(node, trees) {
  trees.forEach((tree, i) => {
    const old = node.childNodes[i];
    const made = make(tree, old);
    if (!old) node.append(made);
    else if (made !== old) old.replaceWith(made);
  });
  while (node.childNodes.length > trees.length) node.lastChild.remove();
}

function compare(before, after, title) {
  const part = (tag, attributes, ...children) => make({ tag, attributes, children });
  const dialog = part('dialog', { class: 'compare' },
    { tag: 'h3', attributes: {}, children: [title] },
    { tag: 'div', attributes: { class: 'pair' }, children: [
      { tag: 'img', attributes: { src: after, alt: 'with the LoRA' }, children: [] },
      ...(before ? [{ tag: 'img', attributes: { src: before, alt: 'without the LoRA', class: 'before' }, children: [] }] : []),
    ] },
    ...(before ? [{ tag: 'label', attributes: {}, children: ['Without ',
      { tag: 'input', attributes: { type: 'range', min: '0', max: '100', value: '50', 'aria-label': 'Compare' }, children: [] }, ' With'] }] : []),
    { tag: 'button', attributes: { type: 'button', class: 'act' }, children: ['Close'] });
  const cut = (x) => dialog.querySelector('.before')?.style.setProperty('clip-path', `inset(0 ${x}% 0 0)`);
  cut(50);
  dialog.querySelector('input')?.addEventListener('input', (event) => cut(event.target.value));
  dialog.querySelector('button').addEventListener('click', () => dialog.close());
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener('close', () => dialog.remove());
  element.append(dialog);
  dialog.showModal();
}

// What is written in the fields beside a button.
const answers = (ask) => Object.fromEntries([...(ask?.querySelectorAll('input') ?? [])].map((field) => [field.name, field.value]));

const draw = (tree) => fill(element.querySelector('.view'), tree ? [tree] : []);
const name = element.closest('.block').id; // props are not there yet in a part that was folded away
(window.drawView ??= {})[name] = draw;
draw(window.shownViews?.[name] ?? props.value);
watch('value', () => draw(props.value));
element.addEventListener('input', (event) => {
  event.target.closest('[data-cut]')?.style.setProperty('--cut', event.target.value);
});
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-act], [data-after]');
  if (!target) return;
  if (target.dataset.after) compare(target.dataset.before, target.dataset.after, target.dataset.title);
  else trigger('click', { ...target.dataset, ...answers(target.closest('.ask')) });
});
