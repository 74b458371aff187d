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
  for (const part of props.value.behind) trigger(part);
});
