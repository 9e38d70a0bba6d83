// Convenience only; the page works without it. One player at a time, a line that follows the sound, click to jump.
for (const audio of document.querySelectorAll("audio")) {
  const picture = audio.parentElement.querySelector(".picture");
  const line = picture.querySelector("i");
  const draw = () => {
    line.style.display = audio.currentTime > 0 ? "block" : "none";
    line.style.left = `${100 * audio.currentTime / (audio.duration || 1)}%`;
    if (!audio.paused) requestAnimationFrame(draw);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    draw();
  });
  audio.addEventListener("seeked", draw);
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    audio.currentTime = (event.clientX - box.left) / box.width * Number(picture.dataset.seconds);
    audio.play();
  });
}
