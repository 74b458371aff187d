// Builds the page part that `props.value` describes ({tag, attributes, children} or text) out of DOM calls,
// reusing the nodes that are there, but never one for another [data-key]. Clicks on [data-act] go to Python with the fields of
// their .ask, as the event that [data-event] names. A slider in [data-cut] sets its --cut.
// news.js draws here, too: what it brought before this view was there lies in `shownViews`.

function make(tree, old) {
  if (typeof tree === 'string') {
    if (old?.nodeType !== Node.TEXT_NODE) return document.createTextNode(tree);
    if (old.data !== tree) old.data = tree;
    return old;
  }
  const same = old?.localName === tree.tag && old.dataset?.key === tree.attributes['data-key'];
  const node = same ? old : document.createElement(tree.tag);
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

// What is written in the fields beside a button.
const answers = (ask) => Object.fromEntries([...(ask?.querySelectorAll('input') ?? [])].map((field) => [field.name, field.value]));

const EVENTS = ['click', 'reuse', 'report']; // Gradio wants their names written here

const draw = (tree) => {
  fill(element.querySelector('.view'), tree ? [tree] : []);
  element.dispatchEvent(new CustomEvent('drawn', { bubbles: true }));
};
const name = element.closest('.block').id; // props are not there yet in a part that was folded away
(window.drawView ??= {})[name] = draw;
draw(window.shownViews?.[name] ?? props.value);
watch('value', () => draw(props.value));
element.addEventListener('input', (event) => {
  event.target.closest('[data-cut]')?.style.setProperty('--cut', event.target.value);
});
element.addEventListener('click', (event) => {
  const target = event.target.closest('[data-act]');
  if (target) trigger(EVENTS.find((name) => name === target.dataset.event) ?? 'click', { ...target.dataset, ...answers(target.closest('.ask')) });
});
