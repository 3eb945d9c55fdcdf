const buttons = () => [...element.querySelectorAll(".heads button")];

function choose(button) {
  const { layer, head } = button.dataset;
  for (const one of buttons()) {
    const isChosen = one.dataset.layer === layer && one.dataset.head === head;
    one.setAttribute("aria-pressed", isChosen);
    one.tabIndex = isChosen ? 0 : -1;
  }
  trigger("select", { layer: Number(layer), head: Number(head) });
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-head]");
  if (button) choose(button);
});

// From head to head by the arrows.
element.addEventListener("keydown", (event) => {
  const all = buttons();
  const place = all.indexOf(document.activeElement);
  const width = all.filter((one) => one.dataset.layer === "0").length;
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width };
  const next = place >= 0 && event.key in steps ? all[place + steps[event.key]] : undefined;
  if (!next) return;
  event.preventDefault();
  next.focus();
  choose(next);
});
