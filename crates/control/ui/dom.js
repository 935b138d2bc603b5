// Elements without a framework: h() makes them, patch() changes what is shown into what
// shall be shown and leaves in place what is the same, so focus and selection survive every
// update. Text only ever becomes text nodes: nothing a store reports can become markup.

const SVG = new Set(["svg", "path", "rect", "line", "circle", "g", "text"]);

export function h(tag, props, ...children) {
  const node = SVG.has(tag)
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node[name] = value;
    else if (name === "css") setCss(node, value);
    else if (name === "value" || name === "checked") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

function setCss(node, css) {
  node.css = css;
  for (const [name, value] of Object.entries(css)) node.style.setProperty(name, value);
}

// Makes the children of `node` look like `wanted`. A node with data-keep is left alone.
export function show(node, ...wanted) {
  const next = document.createDocumentFragment();
  append(next, wanted);
  patchChildren(node, next);
}

// A child with an id that is wanted stays the same element while others come and go around it.
function patchChildren(from, to) {
  const wanted = [...to.childNodes];
  const ids = new Set(wanted.map((want) => want.id).filter(Boolean));
  if (ids.size) [...from.children].filter((have) => have.id && !ids.has(have.id)).forEach((have) => have.remove());
  wanted.forEach((want, index) => {
    const have = from.childNodes[index];
    if (!have) from.append(want);
    else if (!isSame(have, want) && ids.has(have.id)) have.before(want);
    else if (!isSame(have, want)) have.replaceWith(want);
    else patch(have, want);
  });
  while (from.childNodes.length > wanted.length) from.lastChild.remove();
}

const isSame = (a, b) =>
  a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.nodeType !== 1 || a.id === b.id);

function patch(have, want) {
  if (have.nodeType === Node.TEXT_NODE) {
    if (have.data !== want.data) have.data = want.data;
    return;
  }
  if (have.dataset && "keep" in have.dataset) return;
  for (const { name } of [...have.attributes]) {
    if (!want.hasAttribute(name) && name !== "style") have.removeAttribute(name);
  }
  for (const { name, value } of want.attributes) {
    if (name !== "style" && have.getAttribute(name) !== value) have.setAttribute(name, value);
  }
  for (const event of ["onclick", "onsubmit", "oninput", "onchange", "onkeydown"]) have[event] = want[event];
  if (want.css) setCss(have, want.css);
  patchChildren(have, want);
}

// Says something to screen readers, politely, at most one thing at a time.
export function say(text) {
  document.getElementById("said").textContent = text;
}
