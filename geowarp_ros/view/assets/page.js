"use strict";
const NEWS_MS = 250;

async function get(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer.json();
}

function pictureOf(scene) {
  return (kind, row, width) => (scene.pictures.includes(kind) && known(row) ? `picture/${kind}/${row}?width=${width}&of=${scene.session}` : "");
}

async function start() {
  const scene = await get("scene.json");
  const title = scene.kind === "gallery" && scene.title !== "gallery" ? `gallery ${scene.title}` : scene.title;
  document.title = `${title} · geowarp`;
  document.getElementById("title").textContent = title;
  document.getElementById("facts").textContent = [...scene.facts, ...(scene.kind === "drive" ? scene.notes : [])].join("  ·  ");
  const viewer = new Viewer(document.getElementById("viewer"), scene, pictureOf(scene));
  viewer.wholeWindow = true;
  window.viewer = viewer;
  if (scene.kind === "live") follow(viewer, scene);
}

async function follow(viewer, scene) {
  const state = document.getElementById("state");
  state.hidden = false;
  let { version } = scene;
  for (;;) {
    try {
      const news = await get(`news.json?after=${version}`);
      if (news.run !== scene.run) return location.reload(); // it began anew: another drive, or time jumped back
      version = news.version;
      if (news.rows.length) viewer.update(news.rows);
      state.textContent = news.state;
      state.classList.toggle("quiet", !news.fresh);
    } catch {
      state.textContent = "geowarp view has ended";
      state.classList.add("quiet");
      return;
    }
    await new Promise((done) => setTimeout(done, NEWS_MS));
  }
}

start();
