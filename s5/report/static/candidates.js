// Ticked paths become the list, which is kept in the browser until it is saved.
const boxes = [...document.querySelectorAll("input[type=checkbox]")];
const list = document.getElementById("list");
const key = `drop ${location.pathname}`;
// A browser may not keep anything of files; then the list lasts as long as the page.
const kept = {
  get: () => { try { return localStorage.getItem(key) || ""; } catch { return ""; } },
  set: (text) => { try { localStorage.setItem(key, text); } catch { /* not kept */ } },
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
