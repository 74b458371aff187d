// Hands new trees to the views of this tab; one that is drawn later finds them in `shownViews`.
// What takes components of Gradio's is asked for by events of its own: 'menus' and 'chart'.
const shown = (window.shownViews ??= {});
watch('value', () => {
  if (!props.value) return;
  for (const [name, tree] of Object.entries(props.value.shown)) {
    shown[name] = tree;
    window.drawView?.[name]?.(tree);
  }
  window.newsCount = props.value.count;
  const seen = { chart: () => !document.hidden && document.getElementById('chart')?.offsetParent }; // it is asked for again
  for (const part of props.value.behind) if (seen[part]?.() ?? true) trigger(part);
});
