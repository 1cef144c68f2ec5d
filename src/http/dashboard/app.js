"use strict";

// The boxes of the flow, in its order; 3.1 and 3.2 are the two ways out of 3.
const BOXES = [
  ["1", "Notice"], ["2", "Scale up Spot by 1"], ["3", "Wait for the instance"], ["3.1", "In service"],
  ["3.2", "Fall back to on-demand"], ["4", "Taint"], ["5", "Drain, end the old instance"], ["6", "Monitor"],
  ["7", "Healthy?"], ["8", "Stable?"], ["9", "Safe to drain?"], ["10", "Scale down on-demand"],
  ["11", "Clean up"], ["12", "Background loop"],
];
const STEPS_SHOWN = 30;
const SAMPLES = 120;

const samples = new Map();
let asked = null;
let again = false;

const byId = (id) => document.getElementById(id);

// Text always goes in as text: names of nodes and messages of AWS are not ours.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function replace(id, children, otherwise) {
  const place = byId(id);
  place.replaceChildren(...(children.length ? children : [element("p", { class: "quiet" }, otherwise)]));
}

const clock = (text) => new Date(text).toLocaleTimeString();

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

const isOver = (story) => Boolean(story.finishedAt);
const anchor = (story) => `story-${story.name}`;

function drawFlow(stories) {
  const open = stories.filter((story) => !isOver(story));
  byId("flow").replaceChildren(...BOXES.map(([number, name]) => {
    const here = open.filter((story) => story.box === number);
    const held = here.some((story) => story.blockedBy.length);
    const state = held ? "held" : here.length ? "busy" : "";
    const list = here.map((story) => element("li", {},
      element("a", { href: `#${anchor(story)}` }, story.node),
      story.blockedBy.length ? ` waits ${span(story.blockedBy[0].seconds)}` : ""));
    return element("li", { class: state, "data-box": number },
      element("span", { class: "number" }, number), name,
      list.length ? element("ul", { class: "at" }, ...list) : null);
  }));
}

// Spot and on-demand in service, since this page was opened.
function chart(pool) {
  const held = samples.get(pool.name) || [];
  if (held.length < 2) return null;
  const most = Math.max(1, ...held.flatMap((sample) => [sample.spot, sample.onDemand]));
  const line = (key) => held
    .map((sample, index) => `${(index * 100) / (held.length - 1)},${38 - (sample[key] * 36) / most}`).join(" ");
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Instances in service of pool ${pool.name} since this page was opened`);
  for (const [key, name] of [["spot", "spot"], ["onDemand", "on-demand"]]) {
    const drawn = document.createElementNS(namespace, "polyline");
    drawn.setAttribute("class", name);
    drawn.setAttribute("points", line(key));
    svg.append(drawn);
  }
  return svg;
}

function counts(group) {
  return group ? `${group.inService} of ${group.desired} in service` : "not read yet";
}

function drawPool(pool) {
  const entry = (name, value, kind) => [element("dt", {}, name), element("dd", kind ? { class: kind } : {}, value)];
  const conditions = pool.conditions.flatMap((held) => entry(held.type,
    held.status === "True" ? "yes" : `no: ${held.message || held.reason}`, held.status === "True" ? "good" : "bad"));
  return element("article", { class: "card", "data-pool": pool.name },
    element("h3", {}, pool.name, pool.paused ? " (paused)" : "", pool.mode === "Act" ? "" : ` (${pool.mode})`),
    element("dl", {}, ...entry("Spot", counts(pool.spot), "good"),
      ...entry("on demand", counts(pool.onDemand), "bad"), ...entry("fallbacks", String(pool.fallbacks)),
      ...conditions),
    chart(pool));
}

function reasons(blockers) {
  return blockers.map((held) => element("p", { class: "why" },
    `Box ${held.box}: ${held.message} (for ${span(held.seconds)})`));
}

function drawFallback(fallback) {
  return element("article", { class: "card", "data-fallback": fallback.replacement },
    element("h3", {}, fallback.node),
    element("dl", {}, element("dt", {}, "stands in for"), element("dd", {}, fallback.replacedNode),
      element("dt", {}, "on demand for"), element("dd", {}, span(fallback.onDemandSeconds)),
      element("dt", {}, "at box"), element("dd", {}, fallback.box)),
    ...reasons(fallback.blockedBy));
}

function drawStep(step) {
  return element("li", {}, element("time", { datetime: step.at }, clock(step.at)),
    element("span", { class: "number" }, `box ${step.box}`), `${step.node}: ${step.message}`);
}

function drawStory(story, open) {
  const about = isOver(story) ? "over" : `at box ${story.box}, ${story.phase}`;
  const drawn = element("details", { id: anchor(story), "data-replacement": story.name },
    element("summary", {}, element("strong", {}, story.node), ` ${about}`, story.fallback ? ", on demand" : ""),
    ...reasons(story.blockedBy),
    element("ol", {}, ...story.steps.map(drawStep)),
    story.traceId ? element("p", { class: "quiet" }, `trace ${story.traceId}`) : null);
  drawn.open = open;
  return drawn;
}

function drawStories(stories) {
  const open = new Set([...document.querySelectorAll("#stories details[open]")].map((held) => held.id));
  const focused = document.activeElement?.closest?.("#stories details")?.id;
  const shown = stories.filter((story) => byId("finished").checked || !isOver(story))
    .sort((a, b) => (b.startedAt || "").localeCompare(a.startedAt || ""));
  replace("stories", shown.map((story) => drawStory(story, open.has(anchor(story)))), "No node is being replaced.");
  if (focused) byId(focused)?.querySelector("summary").focus();
}

function draw([status, pools, stories, fallbacks]) {
  const { open, finished } = status.replacements;
  byId("summary").textContent =
    `${open} under way, ${status.replacements.fallbacks} on demand, ${finished} over; version ${status.version}, ` +
    `${status.leader ? "this replica acts" : "this replica follows"}${status.ready ? "" : ", not ready: see /readyz"}`;
  for (const pool of pools.items) {
    const held = samples.get(pool.name) || [];
    held.push({ spot: pool.spot?.inService || 0, onDemand: pool.onDemand?.inService || 0 });
    samples.set(pool.name, held.slice(-SAMPLES));
  }
  drawFlow(stories.items);
  replace("pools", pools.items.map(drawPool), "There is no SpotPool yet.");
  replace("fallbacks", fallbacks.items.map(drawFallback), "None: everything runs on Spot.");
  drawStories(stories.items);
}

async function get(path) {
  const answer = await fetch(`/api/v1/${path}`, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`/api/v1/${path}: ${answer.status}`);
  return answer.json();
}

// All pages of a list.
async function all(path) {
  const items = [];
  let page = {};
  do {
    const next = page.continue ? `&continue=${encodeURIComponent(page.continue)}` : "";
    page = await get(`${path}?limit=500${next}`);
    items.push(...page.items);
  } while (page.continue);
  return { items };
}

// One look at a time; what changes meanwhile is looked at once more.
async function look() {
  if (asked) { again = true; return; }
  asked = Promise.all([get("status"), all("pools"), all("replacements"), all("fallbacks")]);
  try {
    draw(await asked);
  } catch (error) {
    byId("summary").textContent = `Spot Guard does not answer: ${error.message}`;
  }
  asked = null;
  if (again) { again = false; setTimeout(look, 200); }
}

function listen() {
  const events = new EventSource("/api/v1/events");
  events.addEventListener("step", (event) => {
    byId("steps").prepend(drawStep(JSON.parse(event.data)));
    while (byId("steps").children.length > STEPS_SHOWN) byId("steps").lastElementChild.remove();
  });
  events.addEventListener("changed", look);
}

byId("finished").addEventListener("change", look);
listen();
look();
// Durations grow also when nothing happens.
setInterval(look, 5000);
