// The grid of the Images page. `props.value` names the project and brings the words; what is shown is asked for with
// `server.ask`, whose answers without `ok` are failures. Every word of a person's goes into the page as text or value.

const root = h('div', { class: 'images-root' });
const place = () => element.querySelector('.images').append(root);
let words = {}, project = '', data = null, live;
let shown = null; // names that the filter lets through; null: all
let filter = { kind: 'all' }, query = '', cropped = false, asked = 0, changing;
let tried = new Set(); // pictures that were looked at from here
const cards = new Map(); // name -> card
const parts = {};

function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, '');
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child != null));
  return node;
}
const say = (name, values = {}) => (words[name] ?? '').replace(/\{(\w+)\}/g, (whole, key) => String(values[key] ?? whole));
const button = (text, act, more = {}) => h('button', { type: 'button', class: 'act', onclick: act, ...more }, text);
const set = (node, name, value) => { if (node[name] !== value) node[name] = value; };

async function ask(act, more = {}) {
  try {
    return (await server.ask({ act, project, ...more })) ?? { why: say('no_answer') };
  } catch {
    return { why: say('no_answer') };
  }
}

// -- what is on the disk ----------------------------------------------------------------------------------------------

async function refresh() {
  const mine = ++asked;
  const answer = await ask('show');
  if (mine !== asked) return;
  if (!answer.ok) return tell(answer.why, true);
  data = answer;
  draw();
  lookAtAll();
}

let looking = false;
async function lookAtAll() {
  if (looking) return;
  looking = true;
  const of = project;
  const unseen = data.unseen.filter((name) => !tried.has(name));
  for (let at = 0; at < unseen.length && of === project; at += 16) {
    parts.progress.textContent = say('looking', { done: at, total: unseen.length });
    const names = unseen.slice(at, at + 16);
    const answer = await ask('look', { names });
    names.forEach((name) => tried.add(name));
    if (!answer.ok) break;
    for (const [name, src] of Object.entries(answer.src)) cards.get(name)?.picture(src);
  }
  parts.progress.textContent = '';
  looking = false;
  if (unseen.length || of !== project) refresh();
}

function changed() { // findings, words and buttons follow
  edited = true;
  clearTimeout(changing);
  changing = setTimeout(refresh, 300);
}

let edited = false;
function tellMake() { // it follows when this page is left
  if (edited) trigger('edited');
  edited = false;
}

function tell(text, failed = false) {
  live.textContent = text;
  live.classList.toggle('failed', failed);
}

async function act(name, more) {
  const answer = await ask(name, more);
  if (!answer.ok) tell(answer.why, true);
  else tell(answer.left?.length ? say('kept', { names: answer.left.join(', ') }) : '');
  edited = true;
  clearTimeout(changing);
  await refresh();
  return answer.ok;
}

// -- cards ------------------------------------------------------------------------------------------------------------

function makeCard(name) {
  const card = { name, saved: '', mark: '', waiting: Promise.resolve() };
  const image = h('img', { alt: name, loading: 'lazy', draggable: 'false' });
  const crop = h('div', { class: 'crop' });
  const inner = h('div', { class: 'picture' }, image, crop);
  const unread = h('p', { class: 'unread' });
  const facts = h('span', { class: 'facts' });
  const odd = h('ul', { class: 'odd' });
  const text = h('textarea', { rows: 3, 'aria-label': say('caption', { name }), spellcheck: 'true' });
  const status = h('p', { class: 'status' });
  const more = h('div', { class: 'more' });
  const use = h('input', { type: 'checkbox', onchange: () => act('on', { names: [name], on: use.checked }) });
  const times = h('input', { type: 'number', min: 1, max: 999, step: 1, onchange: () => act('times', { names: [name], times: Number(times.value) }) });
  const node = h('article', { class: 'image-card', tabindex: -1, role: 'group', 'aria-label': name, 'data-name': name },
    h('div', { class: 'frame' }, inner, unread),
    h('p', { class: 'name' }, h('b', {}, name), ' ', facts),
    odd, text, status, more,
    h('div', { class: 'uses' }, h('label', {}, use, ' ', say('use')), h('label', {}, say('times'), ' ', times),
      button(say('mask'), () => trigger('mask', { name }), { 'aria-label': say('mask_of', { name }) })));
  Object.assign(card, { node, text, use });

  const calm = (words_, kind = '') => { status.textContent = words_; status.className = `status ${kind}`; };
  card.dirty = () => text.value !== card.saved;
  card.picture = (src) => {
    if (src && image.getAttribute('src') !== src) image.src = src;
    inner.hidden = !src;
  };
  card.save = (was) => {
    card.waiting = card.waiting.then(() => saveNow(was));
    return card.waiting;
  };
  async function saveNow(was) {
    if (!card.dirty() && !was) return;
    const sent = text.value;
    calm(say('saving'));
    const answer = await ask('caption', { names: [name], text: sent, was: was ?? card.mark });
    more.replaceChildren();
    node.classList.remove('failed');
    if (!answer.ok) {
      node.classList.add('failed');
      calm(say('failed', { why: answer.why }), 'failed');
      status.setAttribute('role', 'alert');
      more.append(button(say('again'), () => card.save()));
    } else if (answer.theirs) {
      node.classList.add('failed');
      calm('', 'failed');
      const { caption, mark } = answer.theirs;
      more.append(h('p', { role: 'alert' }, say('theirs')), h('blockquote', {}, caption || say('empty')),
        button(say('use_mine'), () => card.save(mark)),
        button(say('use_theirs'), () => { take(caption, mark); more.replaceChildren(); node.classList.remove('failed'); changed(); }));
    } else {
      if (text.value === sent && document.activeElement !== text) text.value = answer.caption;
      card.saved = text.value === answer.caption ? answer.caption : sent; // what was typed meanwhile is still to be saved
      card.mark = answer.mark;
      calm(say('saved'), 'saved');
      asked++; // an answer that is on its way knows the old caption
      changed();
    }
  }
  function take(caption, mark) {
    set(text, 'value', caption);
    card.saved = caption;
    card.mark = mark;
    calm('');
  }
  card.fill = (told) => {
    card.told = told;
    if (told.src || !image.getAttribute('src')) card.picture(told.src);
    const problem = !told.size || told.warnings.some(([level]) => level === 'bad');
    set(unread, 'textContent', !told.src && problem ? say('unread') : '');
    if (told.size) inner.style.aspectRatio = `${told.size[0]} / ${told.size[1]}`;
    if (told.crop) ['left', 'top', 'width', 'height'].forEach((side, i) => { crop.style[side] = `${told.crop[i]}%`; });
    crop.hidden = !told.crop;
    set(facts, 'textContent', told.size ? `${told.size.join(' × ')}${told.bucket ? ` → ${told.bucket.join(' × ')}` : ''}` : '');
    odd.replaceChildren(...(told.on ? told.warnings.map(([level, why]) => h('li', { class: level }, why)) : [h('li', { class: 'off' }, say('off_mark'))]));
    node.classList.toggle('is-off', !told.on);
    set(use, 'checked', told.on);
    if (document.activeElement !== times) set(times, 'value', String(told.times));
    text.placeholder = data.trigger ? say('trigger_stands_in', { trigger: data.trigger }) : say('no_caption');
    if (!card.dirty() && !node.classList.contains('failed')) {
      if (told.mark !== card.mark) take(told.caption, told.mark);
      const saved = status.classList.contains('saved') ? say('saved') : '';
      status.textContent = [saved, told.caption ? say('tokens', { n: told.tokens }) : ''].filter(Boolean).join(' · ');
    }
  };
  text.addEventListener('input', () => { if (card.dirty() && !node.classList.contains('failed')) calm(say('unsaved')); });
  text.addEventListener('blur', () => card.save());
  return card;
}

const visible = () => [...parts.grid.children].filter((node) => !node.hidden);

function onKey(event) {
  const node = event.target.closest?.('.image-card');
  if (!node) return;
  const card = cards.get(node.dataset.name);
  const all = visible(), at = all.indexOf(node);
  if (event.target === card.text) {
    if (event.key === 'Escape') focusCard(node);
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    const next = all[at + 1];
    if (next) cards.get(next.dataset.name).text.focus();
    else focusCard(node);
    return;
  }
  if (event.target !== node) return;
  const columns = Math.max(1, all.findIndex((other) => other.offsetTop > all[0].offsetTop));
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
  if (step) focusCard(all[Math.min(Math.max(at + step, 0), all.length - 1)]);
  else if (event.key === 'Home') focusCard(all[0]);
  else if (event.key === 'End') focusCard(all.at(-1));
  else if (event.key === 'Enter') card.text.focus();
  else if (event.key === 'Delete') card.told.on && act('on', { names: [card.name], on: false });
  else return;
  event.preventDefault();
}

function focusCard(node) {
  parts.grid.querySelector('[tabindex="0"]')?.setAttribute('tabindex', '-1');
  node.setAttribute('tabindex', '0');
  node.focus();
}

// -- filters ----------------------------------------------------------------------------------------------------------

const tagsOf = (caption) => caption.split(/[,\n]/).map((tag) => tag.trim().toLowerCase());
const KINDS = {
  all: () => true,
  warnings: (told) => told.warnings.length > 0,
  uncaptioned: (told) => !told.caption,
  off: (told) => !told.on,
  names: (told) => filter.names.includes(told.name),
  tag: (told) => tagsOf(told.caption).includes(filter.tag.toLowerCase()),
};

function choose(wanted) {
  filter = wanted;
  const seek = query.trim().toLowerCase();
  const fits = (told) => KINDS[filter.kind](told) && (!seek || `${told.name}\n${told.caption}`.toLowerCase().includes(seek));
  shown = filter.kind === 'all' && !seek ? null : new Set(data.pictures.filter(fits).map((told) => told.name));
  drawShown();
}

function drawShown() {
  for (const [name, card] of cards) card.node.hidden = shown !== null && !shown.has(name);
  const seen = visible();
  if (seen.length && !seen.some((node) => node.tabIndex === 0)) {
    parts.grid.querySelector('[tabindex="0"]')?.setAttribute('tabindex', '-1');
    seen[0].setAttribute('tabindex', '0');
  }
  for (const node of parts.filters.children) node.setAttribute('aria-pressed', String(node.dataset.kind === filter.kind));
  const some = shown !== null;
  parts.shown.hidden = !some;
  parts.shown.replaceChildren(...(some ? [h('span', {}, [filter.label, say('shown', { n: seen.length, total: data.pictures.length })].filter(Boolean).join(' · ')), button(say('everything'), () => { parts.search.value = query = ''; choose({ kind: 'all' }); })] : []));
  parts.empty.textContent = !data.pictures.length ? say('none') : seen.length ? '' : say('none_fit');
  for (const node of parts.tags.querySelectorAll('button')) node.setAttribute('aria-pressed', String(filter.kind === 'tag' && node.dataset.tag === filter.tag));
  parts.of.textContent = say('of_shown', { n: seen.length });
}

// -- one edit of many captions ----------------------------------------------------------------------------------------

function buildEditor() {
  const how = h('select', { 'aria-label': say('how'), onchange: () => fields() },
    ...['start', 'end', 'remove', 'replace', 'first', 'shuffle', 'sort', 'clear'].map((name) => h('option', { value: name }, say(name))));
  const text = h('input', { type: 'text', class: 'word', maxlength: 1000 });
  const other = h('input', { type: 'text', maxlength: 1000, 'aria-label': say('with'), placeholder: say('with') });
  const exact = h('input', { type: 'checkbox', checked: true });
  const exactly = h('label', {}, exact, ' ', say('exact'));
  const result = h('div', { class: 'result' });
  let names = null;
  const fields = () => {
    text.hidden = ['shuffle', 'sort', 'clear'].includes(how.value);
    other.hidden = exactly.hidden = how.value !== 'replace';
    text.placeholder = say(how.value === 'replace' ? 'find' : 'word');
    text.setAttribute('aria-label', text.placeholder);
    if (how.value === 'first' && !text.value) text.value = data?.trigger ?? '';
    names = null;
    result.replaceChildren();
  };
  const see = async () => {
    const of = names ?? visible().map((node) => node.dataset.name);
    const told = { how: how.value, text: text.value, other: other.value, exact: exact.checked };
    const answer = await ask('preview', { names: of, edit: told });
    if (!answer.ok) return result.replaceChildren(h('p', { class: 'failed', role: 'alert' }, answer.why));
    const { changes, edit, mark } = answer, most = 100;
    const count = changes.length === 1 ? say('one_changes') : changes.length ? say('change', { n: changes.length }) : say('no_change');
    const apply = async () => {
      if (await act('apply', { names: of, edit, mark })) result.replaceChildren();
      else result.replaceChildren(h('p', { class: 'failed', role: 'alert' }, live.textContent));
    };
    result.replaceChildren(h('p', { class: 'count', role: 'status' }, `→ ${count}`),
      h('ul', { class: 'preview' }, changes.slice(0, most).map(([name, before, after]) => h('li', {}, h('b', {}, name),
        h('span', { class: 'before' }, h('span', { class: 'which' }, say('before')), before || say('empty')),
        h('span', { class: 'after' }, h('span', { class: 'which' }, say('after')), after || say('empty'))))),
      changes.length > most ? h('p', { class: 'quiet' }, say('more', { n: changes.length - most })) : '',
      h('div', { class: 'row' },
        changes.length ? button(say('apply'), apply, { class: 'act primary' }) : '',
        button(say('cancel'), () => { result.replaceChildren(); names = null; })));
  };
  parts.of = h('p', { class: 'quiet' });
  parts.editor = h('form', { class: 'editor', hidden: true, onsubmit: (event) => { event.preventDefault(); see(); } },
    h('div', { class: 'row' }, how, text, other, exactly, h('button', { type: 'submit', class: 'act' }, say('preview'))), parts.of, result);
  for (const field of [text, other, exact]) field.addEventListener('input', () => { names = null; result.replaceChildren(); });
  fields();
  parts.suggest = (edit, of) => {
    open(true);
    how.value = edit.how;
    text.value = edit.text;
    fields();
    names = of;
    see();
    parts.editor.scrollIntoView({ block: 'nearest' });
  };
}

function open(wanted) {
  parts.editor.hidden = !wanted;
  parts.edit.setAttribute('aria-expanded', String(wanted));
}

// -- the whole --------------------------------------------------------------------------------------------------------

function build() {
  const wide = matchMedia('(min-width: 901px)').matches; // on a phone pictures come first
  buildEditor();
  live = h('p', { class: 'live', role: 'status' });
  parts.filters = h('div', { class: 'filters', role: 'group' }, ['all', 'warnings', 'uncaptioned', 'off'].map((kind) =>
    h('button', { type: 'button', class: 'act', 'data-kind': kind, 'aria-pressed': 'false', onclick: () => choose({ kind }) }, say(kind), ' ', h('span', { class: 'number' }))));
  parts.search = h('input', { type: 'search', 'aria-label': say('search'), placeholder: say('search'), oninput: () => { query = parts.search.value; choose(filter); } });
  parts.crop = button(say('crop'), () => { cropped = !cropped; parts.crop.setAttribute('aria-pressed', String(cropped)); parts.grid.classList.toggle('with-crop', cropped); }, { 'aria-pressed': 'false' });
  parts.edit = button(say('edit'), () => open(parts.editor.hidden), { 'aria-expanded': 'false' });
  parts.undo = button(say('undo'), () => act('undo'));
  parts.redo = button(say('redo'), () => act('redo'));
  parts.notice = h('p', { class: 'notice' });
  parts.progress = h('p', { class: 'quiet progress', role: 'status' });
  parts.shown = h('div', { class: 'shown' });
  parts.empty = h('p', { class: 'quiet empty' });
  parts.findings = h('ul', { class: 'findings' });
  parts.tags = h('div', { class: 'tags' });
  parts.grid = h('div', { class: 'grid', onkeydown: onKey });
  root.replaceChildren(
    h('div', { class: 'toolbar' }, parts.filters, parts.search, h('div', { class: 'buttons' }, parts.crop, parts.edit, parts.undo, parts.redo)),
    parts.editor, live, parts.notice,
    h('div', { class: 'columns' },
      h('div', {}, parts.shown, parts.empty, parts.grid, h('p', { class: 'quiet keys' }, say('keys'))),
      h('aside', {}, h('details', { class: 'card', open: wide }, h('summary', {}, say('check')), parts.progress, parts.findings),
        h('details', { class: 'card', open: wide }, h('summary', {}, say('words')), parts.tags))));
}

function draw() {
  const there = new Set(data.pictures.map((told) => told.name));
  for (const [name, card] of cards) if (!there.has(name)) { card.node.remove(); cards.delete(name); }
  data.pictures.forEach((told, i) => {
    let card = cards.get(told.name);
    if (!card) cards.set(told.name, card = makeCard(told.name));
    if (parts.grid.children[i] !== card.node) parts.grid.insertBefore(card.node, parts.grid.children[i] ?? null);
    card.fill(told);
  });
  for (const node of parts.filters.children) node.querySelector('.number').textContent = data.pictures.filter(KINDS[node.dataset.kind]).length;
  parts.notice.textContent = [data.problem, data.notice].filter(Boolean).join(' ');
  for (const name of ['undo', 'redo']) {
    parts[name].disabled = !data[name];
    parts[name].title = data[name] ? say(`${name}_what`, { what: data[name] }) : '';
    parts[name].setAttribute('aria-label', parts[name].title || say(name));
  }
  const marks = { bad: '✕', warn: '⚠', hint: '?', good: '✓' };
  parts.findings.replaceChildren(...data.findings.map((found) => h('li', { class: found.level }, h('span', { class: 'mark', 'aria-hidden': 'true' }, marks[found.level]),
    h('span', { class: 'text' }, found.text),
    h('div', { class: 'row', hidden: !found.names.length }, found.names.length ? button(say('show'), () => { parts.search.value = query = ''; choose({ kind: 'names', names: found.names, label: found.text }); }, { 'aria-label': `${say('show')}: ${found.text}` }) : '',
    found.act ? button(found.act.label, () => (found.act.act === 'preview' ? parts.suggest(found.act.edit, found.act.names) : act(found.act.act, { names: found.act.names })), { 'aria-label': `${found.act.label}: ${found.text}` }) : ''))));
  if (data.pictures.length && !data.findings.some((found) => found.level !== 'good') && !data.unseen.length) {
    parts.findings.prepend(h('li', { class: 'good' }, h('span', { class: 'mark', 'aria-hidden': 'true' }, marks.good), h('span', { class: 'text' }, say('nothing_found'))));
  }
  parts.tags.replaceChildren(...(data.tags.length ? data.tags.slice(0, 60).map(([tag, count]) => h('button', { type: 'button', class: 'tag', 'data-tag': tag, 'aria-pressed': 'false',
    onclick: () => choose(filter.kind === 'tag' && filter.tag === tag ? { kind: 'all' } : { kind: 'tag', tag, label: tag }) }, h('span', {}, tag), ' ', h('b', {}, String(count)))) : [h('p', { class: 'quiet' }, say('no_words'))]));
  drawShown();
}

function begin() {
  if (!props.value) return;
  if (!root.isConnected) place();
  if (props.value.project !== project || !parts.grid) {
    words = props.value.words;
    project = props.value.project;
    cards.clear();
    [filter, query, shown, data, tried] = [{ kind: 'all' }, '', null, null, new Set()];
    build();
  }
  refresh();
}

// Captions that a model wrote: news.js brings whose they are.
(window.drawView ??= {})['captions-written'] = (written) => { if (written?.project === project && project && data) changed(); };

const onScreen = () => root.isConnected && root.offsetParent !== null;
begin();
watch('value', begin);
let wasSeen = false;
new IntersectionObserver(([entry]) => {
  if (entry.isIntersecting && !wasSeen && project) refresh();
  wasSeen = entry.isIntersecting;
  if (!onScreen()) tellMake();
}).observe(element);
window.addEventListener('focus', () => { if (onScreen() && project && !looking) refresh(); });
window.addEventListener('beforeunload', (event) => { if ([...cards.values()].some((card) => card.dirty())) event.preventDefault(); });
