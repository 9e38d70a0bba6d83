// The ticked paths make up the list, which the browser stores until it is saved.
const boxes = [...document.querySelectorAll("input[type=checkbox]")];
const list = document.getElementById("list");
const key = `drop ${location.pathname}`;
// A browser may refuse storage to pages from disk; then the list is lost when the page is closed.
const kept = {
  get: () => { try { return localStorage.getItem(key) || ""; } catch { return ""; } },
  set: (text) => { try { localStorage.setItem(key, text); } catch { /* not stored */ } },
};
const stored = new Set(kept.get().split("\n"));
for (const box of boxes) box.checked = stored.has(box.value);
const update = () => {
  const ticked = boxes.filter((box) => box.checked).map((box) => box.value);
  list.value = ticked.map((path) => `${path}\tunlike its class\n`).join("");
  document.getElementById("count").textContent = `${ticked.length} of ${boxes.length} ticked`;
  kept.set(ticked.join("\n"));
};
for (const box of boxes) box.addEventListener("change", update);
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([list.value], { type: "text/plain" }));
  link.download = "drop.txt";
  link.click();
});
for (const audio of document.querySelectorAll("audio")) {
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
  });
}
update();
