// A slider of a strength tells of keys, dragging and typing by `input`, but not of its reset button, nor of a number that was
// too large and is cut when it is left: then it tells now. (To draw at every release would draw each picture twice.)
const told = new WeakMap();
const amountOf = (inside) => inside.closest?.('.amount')?.querySelector('input[type=number]');

function tell(amount, always) {
  const before = told.get(amount);
  if (before === undefined ? always : before !== amount.value) amount.dispatchEvent(new Event('input', { bubbles: true }));
}

function after(event, act) {
  const amount = amountOf(event.target);
  if (amount) setTimeout(() => act(amount)); // once the component has taken the value
}

document.addEventListener('input', (event) => after(event, (amount) => told.set(amount, amount.value)), true);
document.addEventListener('focusout', (event) => after(event, (amount) => tell(amount, false)), true);
document.addEventListener('click', (event) => {
  if (event.target.closest?.('.reset-button')) after(event, (amount) => tell(amount, true));
}, true);
