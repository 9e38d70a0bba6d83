"use strict";
// The table of mixtures, and the player of the chosen one. A mixture's script calls s5page.arrived(). Its sounds are
// decoded once and play on one clock, so that choosing the audible ones only changes gains.
window.s5page = (() => {
  const KEPT = 4; // mixtures in memory
  const FADE = 0.01; // seconds from one sound to another
  const by = (id) => document.getElementById(id);
  const rows = [...document.querySelectorAll("tbody tr")].map((row) => ({
    row, link: row.querySelector("a"), ...JSON.parse(row.dataset.facts),
  }));
  const systems = [...document.querySelectorAll("#transport [data-hear]")].map((b) => b.dataset.hear)
    .filter((kind) => kind.length === 1);
  const scripts = new Map(); // address -> promise of the content, the latest one at the end
  const waiting = new Map(); // number -> function that takes the content
  const state = { utt: null, wanted: null, lanes: [], buffers: null, heard: new Set(), seconds: 1, at: 0, playing: null, repeat: false };
  let context = null;

  // --- contents ---

  const load = (address) => {
    const number = Number(address.match(/\d+/)[0]);
    const known = scripts.get(address);
    scripts.delete(address);
    scripts.set(address, known || new Promise((resolve, reject) => {
      const script = document.createElement("script");
      waiting.set(number, resolve);
      script.onerror = () => { scripts.delete(address); reject(new Error(`${address} is missing beside this page`)); };
      script.onload = () => script.remove();
      script.src = address;
      document.head.append(script);
    }));
    for (const old of [...scripts.keys()].slice(0, -KEPT)) scripts.delete(old);
    return scripts.get(address);
  };
  const arrived = (number, content) => waiting.get(number)(content);

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  // An offline context decodes before the first click, and at the files' own rate.
  const decode = (content) => Promise.all(content.sounds.map((sound) =>
    new OfflineAudioContext(1, 1, content.fs).decodeAudioData(bytes(sound).buffer)));

  const show = async (entry) => {
    if (entry.utt === state.utt) return;
    stop();
    Object.assign(state, { utt: entry.utt, wanted: entry.utt, lanes: [], buffers: null, at: 0 });
    for (const other of rows) other.row.removeAttribute("aria-current");
    entry.row.setAttribute("aria-current", "true");
    entry.row.scrollIntoView({ block: "nearest" });
    const place = by("mixture");
    let content;
    try {
      content = await load(entry.link.dataset.script);
    } catch (error) {
      place.textContent = error.message;
      by("transport").hidden = true;
      state.utt = null;
      return;
    }
    if (entry.utt !== state.utt) return; // another one was chosen meanwhile
    place.innerHTML = content.html;
    state.lanes = [...place.querySelectorAll(".lane[data-sound]")].map((lane) => ({
      lane, number: Number(lane.dataset.sound), kind: lane.dataset.kind,
      title: lane.querySelector("h4").textContent, group: lane.closest(".group"),
    }));
    for (const lane of state.lanes) equip(lane, content);
    state.seconds = content.seconds;
    state.buffers = decode(content);
    state.buffers.catch((error) => { by("heard").textContent = `no sound: ${error.message}`; });
    by("seek").max = content.seconds;
    by("transport").hidden = false;
    hear([0]);
    draw();
  };

  const equip = (lane, content) => {
    const on = (what, action) => lane.lane.querySelector(what).addEventListener("click", action);
    on(".solo", () => hear([lane.number], true));
    on(".add", () => add(lane.number));
    on(".save", (event) => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([bytes(content.sounds[lane.number])], { type: "audio/flac" }));
      link.download = event.currentTarget.dataset.name;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    on(".view", (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      seek((event.clientX - box.left) / box.width * state.seconds);
      if (!state.heard.has(lane.number)) hear([lane.number]);
      play();
    });
  };

  // --- sound ---

  const now = () => {
    if (!state.playing) return state.at;
    const passed = state.playing.from + Math.max(0, context.currentTime - state.playing.began);
    return state.repeat ? passed % state.seconds : Math.min(passed, state.seconds);
  };

  const play = async () => {
    if (state.playing || !state.buffers) return;
    context ||= new AudioContext();
    const utt = state.utt;
    const run = { sources: [], gains: [], from: 0, began: 0 };
    state.playing = run;
    setTimeout(() => { // without a sound device a browser may never start
      if (state.playing === run && !run.sources.length) by("heard").textContent = "no sound: the browser does not start it";
    }, 3000);
    const buffers = await Promise.all([state.buffers, context.resume()]).then(([all]) => all, () => null);
    if (state.playing !== run) return; // stopped meanwhile
    if (!buffers || utt !== state.utt) { state.playing = null; return; }
    if (state.at >= state.seconds - 0.02) state.at = 0;
    run.from = state.at;
    run.began = context.currentTime + 0.03;
    for (const buffer of buffers) {
      const source = new AudioBufferSourceNode(context, { buffer, loop: state.repeat });
      const gain = new GainNode(context, { gain: 0 });
      source.connect(gain).connect(context.destination);
      source.start(run.began, run.from);
      run.sources.push(source);
      run.gains.push(gain);
    }
    run.sources[0].onended = () => { if (state.playing === run) { stop(); state.at = 0; draw(); } };
    mix();
    tick();
  };

  const stop = () => {
    const run = state.playing;
    state.at = now();
    state.playing = null;
    if (run) for (const source of run.sources) { source.onended = null; source.stop(); }
    draw();
  };

  const seek = (seconds) => {
    const running = state.playing;
    stop();
    state.at = Math.min(Math.max(0, seconds), state.seconds);
    draw();
    if (running) play();
  };

  // Sets the gains of the audible sounds, and shows which sounds they are.
  const mix = async () => {
    const heard = [...state.heard];
    const words = state.lanes.filter((lane) => state.heard.has(lane.number)).map((lane) => {
      const head = lane.group.querySelector("h3");
      return head ? `${lane.title} (${head.firstChild.textContent.trim()})` : lane.title;
    });
    for (const { lane, number } of state.lanes) {
      const on = state.heard.has(number);
      lane.classList.toggle("heard", on);
      lane.querySelector(".solo").setAttribute("aria-pressed", String(on && heard.length === 1));
      lane.querySelector(".add").setAttribute("aria-pressed", String(on && heard.length > 1));
    }
    for (const button of document.querySelectorAll("[data-hear]")) {
      const own = of(button.dataset.hear);
      button.disabled = own.length === 0;
      button.setAttribute("aria-pressed",
        String(own.length > 0 && own.length === heard.length && own.every((n) => state.heard.has(n))));
    }
    by("heard").textContent = `Heard: ${words.join(" + ") || "nothing"}`;
    const buffers = await state.buffers?.catch(() => null);
    if (!buffers || heard.some((number) => !buffers[number])) return;
    const level = headroom(buffers, heard);
    if (level < 1) by("heard").textContent += `, ${(20 * Math.log10(level)).toFixed(1).replace("-", "−")} dB`;
    const run = state.playing;
    if (!run || run.gains.length !== buffers.length) return;
    const when = context.currentTime;
    run.gains.forEach((gain, number) => {
      gain.gain.cancelScheduledValues(when);
      gain.gain.setTargetAtTime(state.heard.has(number) ? level : 0, when, FADE / 3);
    });
  };

  // The factor that keeps the sum of the audible sounds below 1.
  const headroom = (buffers, heard) => {
    if (heard.length < 2) return 1;
    const parts = heard.map((number) => buffers[number].getChannelData(0));
    let peak = 0;
    for (let t = 0; t < parts[0].length; t++) {
      let sum = 0;
      for (const part of parts) sum += part[t];
      peak = Math.max(peak, Math.abs(sum));
    }
    return peak > 0.99 ? 0.99 / peak : 1;
  };

  const of = (kind) => state.lanes.filter((lane) => lane.kind === kind).map((lane) => lane.number);
  const hear = (numbers, start = false) => {
    state.heard = new Set(numbers);
    mix();
    if (start) play();
  };
  const add = (number) => {
    if (!state.heard.delete(number)) state.heard.add(number);
    mix();
  };

  // A/B: replaces the audible estimates by the next system's estimates of the same sources. Sounds without a counterpart
  // (the mixture, references, a source that the next system missed) are dropped. Without an estimate, all of A are heard.
  const swap = () => {
    const heard = state.lanes.filter((lane) => state.heard.has(lane.number));
    const current = heard.map((lane) => systems.indexOf(lane.kind)).find((i) => i >= 0);
    if (current === undefined) { hear(of(systems[0])); return; }
    const next = systems[(current + 1) % systems.length];
    const whole = of(systems[current]).length === heard.length && heard.every((l) => l.kind === systems[current]);
    const groups = new Set(heard.map((lane) => lane.group));
    hear(state.lanes.filter((lane) => lane.kind === next && (whole || groups.has(lane.group))).map((l) => l.number));
    if (!state.heard.size) by("heard").textContent = `Heard: nothing (system ${next} has no estimate of it)`;
  };

  // --- time ---

  const draw = () => {
    const time = now();
    by("mixture").style.setProperty("--now", time / state.seconds);
    by("seek").value = time;
    by("time").textContent = `${time.toFixed(1)} of ${state.seconds.toFixed(1)} s`;
    const word = state.playing ? "❚❚ Pause" : "▶ Play";
    if (by("play").textContent !== word) by("play").textContent = word;
  };
  const tick = () => { draw(); if (state.playing) requestAnimationFrame(tick); };

  // --- the table ---

  const visible = () => rows.filter((entry) => !entry.row.hidden);
  const filter = () => {
    const [label, count, labels] = ["class", "count", "labels"].map((id) => by(id).value);
    const [kind, letter] = labels.split(" ");
    for (const entry of rows) {
      const wrong = entry.wrong.includes(letter);
      entry.row.hidden = (label !== "" && !entry.labels.includes(label)) || (count !== "" && entry.count !== Number(count))
        || (kind === "wrong" && !wrong) || (kind === "right" && wrong) || (kind === "same" && !entry.same);
    }
    const n = visible().length;
    by("shown").textContent = `${n} of ${rows.length} mixture${rows.length === 1 ? "" : "s"}`;
  };
  const order = () => {
    const [what, letter] = by("order").value.split(" ");
    const value = (entry) => {
      const own = entry.values[letter];
      if (what === "gain" || what === "loss") {
        return own === null || entry.values.A === null ? null : own - entry.values.A;
      }
      return own;
    };
    const sign = what === "worst" || what === "loss" ? 1 : -1;
    // Equals stay in the order of the choice; mixtures without a value come last.
    rows.sort((a, b) => a.link.dataset.script.localeCompare(b.link.dataset.script));
    if (what === "name") rows.sort((a, b) => a.utt.localeCompare(b.utt, "en", { numeric: true }));
    else if (what) rows.sort((a, b) => (value(a) === null) - (value(b) === null) || sign * (value(a) - value(b)));
    document.querySelector("tbody").append(...rows.map((entry) => entry.row));
  };
  const go = (entry) => {
    state.wanted = entry.utt; // a key that is held down does not wait for the page
    location.hash = entry.link.getAttribute("href").slice(1);
  };
  const step = (far) => {
    const list = visible();
    const at = list.findIndex((entry) => entry.utt === state.wanted);
    const next = at < 0 ? list[0] : list[at + far];
    if (next) go(next);
  };
  const follow = (scroll) => {
    const utt = decodeURIComponent(location.hash.slice(1));
    const entry = rows.find((one) => one.utt === utt) || (utt ? null : rows[0]);
    if (!entry) return;
    show(entry).then(() => {
      if (scroll && by("mixture").getBoundingClientRect().top > innerHeight / 3) by("mixture").scrollIntoView();
    });
  };

  // --- events ---

  for (const entry of rows) {
    entry.row.addEventListener("click", (event) => { if (!event.target.closest("a")) go(entry); });
  }
  for (const id of ["class", "count", "labels"]) by(id).addEventListener("change", filter);
  by("order").addEventListener("change", order);
  by("play").addEventListener("click", () => (state.playing ? stop() : play()));
  by("seek").addEventListener("input", (event) => seek(Number(event.target.value)));
  by("previous").addEventListener("click", () => step(-1));
  by("next").addEventListener("click", () => step(1));
  by("swap").addEventListener("click", swap);
  by("swap").hidden = systems.length < 2;
  const repeat = () => {
    const running = state.playing;
    stop(); // a source's loop has to be set before it starts
    state.repeat = !state.repeat;
    by("repeat").setAttribute("aria-pressed", String(state.repeat));
    if (running) play();
  };
  by("repeat").addEventListener("click", repeat);
  for (const button of document.querySelectorAll("[data-hear]")) {
    button.addEventListener("click", () => hear(of(button.dataset.hear), true));
  }
  // A clicked button gives up the focus, so that the space bar plays; a button reached with Tab keeps it.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) event.target.closest("button")?.blur();
  });
  const keys = {
    " ": () => by("play").click(), p: () => by("play").click(), o: repeat, x: swap, m: () => hear(of("mixture"), true),
    r: () => hear(of("reference"), true), j: () => step(1), k: () => step(-1), f: () => by("class").focus(),
    Home: () => seek(0), ArrowLeft: () => seek(now() - 0.5), ArrowRight: () => seek(now() + 0.5),
    "?": () => { by("help").open = !by("help").open; by("help").scrollIntoView({ block: "nearest" }); },
  };
  for (const letter of systems) keys[letter.toLowerCase()] = () => hear(of(letter), true);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.closest("select, input")) return;
    if (event.key === " " && event.target.closest("button, summary, a")) return;
    const digit = event.code.match(/^(?:Digit|Numpad)(\d)$/);
    if (digit && state.lanes.some((lane) => lane.number === Number(digit[1]))) {
      if (event.shiftKey) add(Number(digit[1]));
      else hear([Number(digit[1])], true);
    } else if (keys[event.key]) keys[event.key]();
    else return;
    event.preventDefault();
  });
  addEventListener("hashchange", () => follow(true));
  filter();
  setTimeout(() => follow(false)); // after the page is painted
  return { arrived };
})();
