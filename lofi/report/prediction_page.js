"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const video = byId("video"), timeline = byId("timeline"), track = byId("track"), head = byId("head");
  const duration = Number(document.querySelector("main").dataset.duration);
  const cards = [...document.querySelectorAll(".card")];
  const found = [...document.querySelectorAll(".strip.found .segment")];
  const lanes = [...document.querySelectorAll(".lane")];
  const sources = [...video.querySelectorAll("source")];
  let now = 0, selected = null, plays = true, wanted = null;

  const clock = (seconds) => {
    const tenths = Math.round(seconds * 10), whole = Math.floor(tenths / 10);
    const pad = (value) => String(value).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return (hours ? `${hours}:${pad(minutes)}` : String(minutes)) + `:${pad(whole % 60)}.${tenths % 10}`;
  };

  // The time: of the video where it plays, else our own.
  const show = (seconds) => {
    now = Math.min(Math.max(seconds, 0), duration);
    head.style.left = `${(100 * now) / duration}%`;
    byId("clock").textContent = clock(now);
    timeline.setAttribute("aria-valuenow", now.toFixed(1));
    timeline.setAttribute("aria-valuetext", clock(now));
  };
  const seek = (seconds) => {
    show(seconds);
    if (!plays) return;
    if (video.readyState >= 1) video.currentTime = now;
    else wanted = now; // not there yet: as soon as its length is known
  };
  const intoView = () => {
    const x = (now / duration) * track.offsetWidth;
    if (x < timeline.scrollLeft || x > timeline.scrollLeft + timeline.clientWidth)
      timeline.scrollLeft = x - timeline.clientWidth / 2;
  };

  const select = (index) => {
    const card = cards.find((each) => Number(each.dataset.index) === index);
    selected = index;
    for (const each of [...cards, ...found])
      each.classList.toggle("is-selected", Number(each.dataset.index) === index);
    for (const each of cards) each.toggleAttribute("aria-current", each === card);
    byId("selected").textContent =
      `${card.dataset.label}, ${clock(Number(card.dataset.start))} to ${clock(Number(card.dataset.end))}`;
    const picture = card.querySelector("img");
    byId("still").hidden = !picture;
    if (picture) byId("still").src = picture.src;
    seek(Number(card.dataset.start));
    intoView();
  };
  for (const card of cards) card.addEventListener("click", () => select(Number(card.dataset.index)));

  // A click on a detection selects it; anywhere else on the timeline, and while the pointer is drawn, it moves the time.
  const timeAt = (event) => {
    const box = track.getBoundingClientRect();
    return ((event.clientX - box.left) / box.width) * duration;
  };
  timeline.addEventListener("click", (event) => {
    const segment = event.target.closest(".segment");
    if (!segment) seek(timeAt(event));
    else if (segment.dataset.index !== undefined) select(Number(segment.dataset.index));
    else seek(Number(segment.dataset.start));
  });
  timeline.addEventListener("pointermove", (event) => {
    if (event.buttons === 1 && event.pointerType === "mouse" && !event.target.closest(".segment")) seek(timeAt(event));
  });

  const step = (direction) => {
    const shown = cards.filter((card) => !card.closest("li").hidden);
    const inTime = shown.sort((a, b) => a.dataset.start - b.dataset.start || a.dataset.index - b.dataset.index);
    if (!inTime.length) return;
    // From the selected one while the time is still there, else from the time.
    const at = inTime.findIndex((card) => Number(card.dataset.index) === selected && Math.abs(card.dataset.start - now) < 0.05);
    const later = inTime.findIndex((card) => Number(card.dataset.start) > now);
    const from = at >= 0 ? at : (later < 0 ? inTime.length : later) - (direction > 0 ? 1 : 0);
    const next = inTime[(from + direction + inTime.length) % inTime.length];
    select(Number(next.dataset.index));
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, a")) return;
    const onButton = event.target.matches("button, summary");
    const seconds = event.shiftKey ? 10 : 1;
    const actions = {
      ArrowLeft: () => seek(now - seconds),
      ArrowRight: () => seek(now + seconds),
      Home: () => seek(0),
      n: () => step(1),
      p: () => step(-1),
      " ": () => plays && (video.paused ? video.play().catch(() => {}) : video.pause()),
    };
    if (!(event.key in actions) || (event.key === " " && onButton)) return;
    event.preventDefault();
    event.stopPropagation(); // the video has keys of its own
    actions[event.key]();
    intoView();
  }, true);

  // The slider of scores hides detections here; it changes no file.
  const least = byId("least");
  const filter = () => {
    let count = 0;
    const hides = (element) => Number(element.dataset.score) < Number(least.value);
    for (const card of cards) {
      const item = card.closest("li");
      item.hidden = hides(item);
      count += item.hidden ? 0 : 1;
    }
    for (const segment of found) segment.hidden = hides(segment);
    for (const lane of lanes) {
      const rows = [...lane.querySelectorAll(".found .segment:not([hidden])")].map((each) => Number(each.dataset.row));
      lane.hidden = lane.dataset.truths === "0" && !rows.length;
      lane.querySelector(".found").style.setProperty("--rows", Math.max(0, ...rows) + 1);
    }
    byId("least_text").textContent = Number(least.value).toFixed(2);
    byId("num_shown").textContent = String(count);
  };
  least.addEventListener("input", filter);

  const axis = byId("axis");
  const draw = () => {
    const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200];
    const room = Math.max(1, Math.floor(track.offsetWidth / 76));
    const size = steps.find((each) => duration / each <= room) || 7200;
    const marks = [];
    for (let index = 0; index * size <= duration; index++) {
      const mark = document.createElement("span"), text = clock(index * size);
      mark.style.left = `${(100 * index * size) / duration}%`;
      mark.textContent = size < 1 ? text : text.slice(0, -2);
      marks.push(mark);
    }
    axis.replaceChildren(...marks);
  };
  byId("zoom").addEventListener("input", (event) => {
    const middle = now / duration;
    track.style.width = `calc((100% - 1.4rem) * ${2 ** Number(event.target.value)})`;
    draw();
    timeline.scrollLeft = middle * track.offsetWidth - timeline.clientWidth / 2;
  });
  window.addEventListener("resize", draw);

  // The play head follows the picture; where nothing can be played, a still stands in its place.
  const follow = () => {
    show(video.currentTime);
    if (!video.paused) { intoView(); requestAnimationFrame(follow); }
  };
  video.addEventListener("play", () => requestAnimationFrame(follow));
  for (const name of ["seeked", "timeupdate", "pause"])
    video.addEventListener(name, () => { if (!video.seeking) show(video.currentTime); });
  video.addEventListener("loadedmetadata", () => {
    setPlays(video.videoWidth > 0); // sound alone, where only the codec of the picture is unknown
    if (wanted !== null) video.currentTime = wanted;
    wanted = null;
  });
  const setPlays = (value) => {
    plays = value;
    video.style.display = value ? "" : "none";
    byId("unplayable").hidden = value;
    document.body.toggleAttribute("data-unplayable", !value);
  };
  let failed = 0;
  for (const source of sources)
    source.addEventListener("error", () => { failed += 1; if (failed >= sources.length) setPlays(false); });
  video.addEventListener("error", () => setPlays(false));
  // Sources that failed before this script ran. At first every video is without a source for a moment.
  window.addEventListener("load", () => setTimeout(() => {
    if (video.networkState === HTMLMediaElement.NETWORK_NO_SOURCE) setPlays(false);
  }, 500));

  draw();
  filter();
  show(0);
})();
