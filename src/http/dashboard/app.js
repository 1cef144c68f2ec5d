"use strict";

// The boxes of the flow, in its order; 3.1 and 3.2 are the two ways out of 3.
const BOXES = [
  ["1", "Notice"], ["2", "Scale up Spot by 1"], ["3", "Wait for the instance"], ["3.1", "In service"],
  ["3.2", "Fall back to on-demand"], ["4", "Taint"], ["5", "Drain, end the old instance"], ["6", "Monitor"],
  ["7", "Healthy?"], ["8", "Stable?"], ["9", "Safe to drain?"], ["10", "Scale down on-demand"],
  ["11", "Clean up"], ["12", "Background loop"],
];
const STEPS_SHOWN = 30;
const SAMPLES = 500;

// Pauses between two attempts to follow what happens, in milliseconds.
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30000;

const samples = new Map();
let asked = null;
let again = false;
// What the caller may request.
let may = new Set();
// The token of the cluster that the caller has entered, for as long as the tab lives.
let token = sessionStorage.getItem("token") || "";

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

// A button that requests something, for those who may.
function request(action, label, path, question) {
  if (!may.has(action)) return null;
  const button = element("button", { type: "button", "data-action": action }, label);
  button.addEventListener("click", async () => {
    if (!confirm(question)) return;
    button.disabled = true;
    try {
      const answer = await ask(path, { method: "POST", headers: { "idempotency-key": crypto.randomUUID() } });
      say(`${label}: requested (SpotAction ${answer.name})`);
    } catch (error) {
      say(`${label}: ${error.message}`);
    }
    button.disabled = false;
    look();
  });
  return button;
}

function say(text) {
  byId("said").textContent = text;
}

// Spot and on-demand in service over time, as the replica that answers has seen it.
function chart(pool, now) {
  const held = samples.get(pool.name) || [];
  if (!held.length) return null;
  const [first, last] = [Date.parse(held[0].at), Date.parse(now)];
  const x = (at) => last > first ? ((Date.parse(at) - first) * 100) / (last - first) : 0;
  const most = Math.max(1, ...held.flatMap((sample) => [sample.spot, sample.onDemand]));
  const y = (count) => 38 - (count * 36) / most;
  // What was so stays so until the next sample.
  const line = (key) => held.map((sample, index) =>
    `${x(sample.at)},${y(sample[key])} ${x(held[index + 1]?.at || now)},${y(sample[key])}`).join(" ");
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 100 40");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `Instances in service of pool ${pool.name} in the last ${span((last - first) / 1000)}: ` +
    ["spot", "onDemand"].map((key) => `${key === "spot" ? "Spot" : "on demand"} from ${held[0][key]} to ` +
      `${held.at(-1)[key]}, at the most ${Math.max(...held.map((sample) => sample[key]))}`).join("; "));
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

function isFull(group) {
  return group && group.inService >= group.desired;
}

const REPLACERS = { SpotGuard: "Spot Guard", Group: "their group" };
const CAUSES = { Shortfall: "missing Spot instance", Adoption: "above the baseline" };

function baseline(pool) {
  if (pool.baseline === undefined) return "";
  return pool.aboveBaseline ? `, ${pool.aboveBaseline} above the baseline of ${pool.baseline}` : `, baseline ${pool.baseline}`;
}

function drawPool(pool, allPaused, now) {
  const entry = (name, value, kind) => [element("dt", {}, name), element("dd", kind ? { class: kind } : {}, value)];
  const conditions = pool.conditions.flatMap((held) => entry(held.type,
    held.status === "True" ? "yes" : `no: ${held.message || held.reason}`, held.status === "True" ? "good" : "bad"));
  return element("article", { class: "card", "data-pool": pool.name },
    element("h3", {}, pool.name, pool.paused ? " (paused)" : "", pool.mode === "Act" ? "" : ` (${pool.mode})`),
    element("dl", {}, ...entry("Spot", counts(pool.spot), isFull(pool.spot) ? "good" : "bad"),
      ...entry("on demand", counts(pool.onDemand) + baseline(pool), pool.fallbacks ? "bad" : undefined),
      ...entry("fallbacks", String(pool.fallbacks)),
      ...(pool.replacedBy ? entry("nodes are replaced by", REPLACERS[pool.replacedBy]) : []),
      ...conditions),
    chart(pool, now),
    allPaused ? null : pool.paused
      ? request("Resume", "Resume", `pools/${pool.name}/resume`, `Let replacements of pool ${pool.name} begin again?`)
      : request("Pause", "Pause", `pools/${pool.name}/pause`, `Let no replacement of pool ${pool.name} begin? A node with a deadline does not wait.`));
}

function reasons(blockers) {
  return blockers.map((held) => element("p", { class: "why", title: held.reason },
    `Box ${held.box}: ${held.message} (for ${span(held.seconds)})`));
}

function drawFallback(fallback) {
  return element("article", { class: "card", "data-fallback": fallback.replacement },
    element("h3", {}, fallback.node),
    element("dl", {}, element("dt", {}, "stands in for"), element("dd", {}, fallback.replacedNode || "a Spot instance"),
      element("dt", {}, "on demand for"), element("dd", {}, span(fallback.onDemandSeconds)),
      ...cost(fallback),
      element("dt", {}, "at box"), element("dd", {}, fallback.box)),
    ...reasons(fallback.blockedBy),
    request("Return", "Return now", `fallbacks/${fallback.replacement}/return`,
      `Return ${fallback.node} to Spot as soon as that is safe, without waiting until Spot is stable?`));
}

function cost(fallback) {
  if (fallback.estimatedExtraCost === undefined) return [];
  return [element("dt", {}, "costs more by"), element("dd", {}, `about ${fallback.estimatedExtraCost.toFixed(2)}`)];
}

function drawStep(step) {
  return element("li", {}, element("time", { datetime: step.at }, clock(step.at)),
    element("span", { class: "number" }, `box ${step.box}`), `${step.node}: ${step.message}`);
}

function drawStory(story, open) {
  const about = isOver(story) ? "over" : `at box ${story.box}, ${story.phase}`;
  const drawn = element("details", { id: anchor(story), "data-replacement": story.name },
    element("summary", {}, element("strong", {}, story.node || story.name), ` ${about}`, story.fallback ? ", on demand" : "",
      CAUSES[story.cause] ? `, ${CAUSES[story.cause]}` : ""),
    ...reasons(story.blockedBy),
    element("ol", {}, ...story.steps.map(drawStep)),
    trace(story),
    isOver(story) ? null : request("Cancel", "Cancel", `replacements/${story.name}/cancel`,
      `Cancel the replacement of ${story.node || story.name}? Taint and cordon are removed.`));
  drawn.open = open;
  return drawn;
}

function trace(story) {
  if (!story.traceId) return null;
  const shown = story.traceUrl ? element("a", { href: story.traceUrl, rel: "noreferrer" }, story.traceId) : story.traceId;
  return element("p", { class: "quiet" }, "trace ", shown);
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
    `${status.leader ? "this replica acts" : "this replica follows"}${status.ready ? "" : ", not ready: see /readyz at the port for probes"}` +
    `${status.paused ? "; everything is paused" : ""}`;
  byId("all").replaceChildren(...[status.paused
    ? request("Resume", "Resume everything", "resume", "Let replacements begin again?")
    : request("Pause", "Pause everything", "pause", "Let no replacement begin? A node with a deadline does not wait.")].filter(Boolean));
  for (const pool of pools.items) {
    const held = samples.get(pool.name) || [];
    const seen = sample({ ...pool, at: status.now });
    const same = held.at(-1)?.spot === seen.spot && held.at(-1)?.onDemand === seen.onDemand;
    samples.set(pool.name, same ? held : [...held, seen].slice(-SAMPLES));
  }
  drawFlow(stories.items);
  replace("pools", pools.items.map((pool) => drawPool(pool, status.paused, status.now)), "There is no SpotPool yet.");
  replace("fallbacks", fallbacks.items.map(drawFallback), "None: everything runs on Spot.");
  drawStories(stories.items);
}

// What a request answers with; an unknown caller needs a token.
async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(`/api/v1/${path}`, { ...options, headers });
  if (answer.status === 401) byId("login").hidden = false;
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw new Error(problem.detail || `/api/v1/${path}: ${answer.status}`);
  }
  return options.stream ? answer.body : answer.json();
}

const get = (path) => ask(path);

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

const sample = (held) =>
  ({ at: held.at, spot: held.spot?.inService || 0, onDemand: held.onDemand?.inService || 0 });

// What was before this page was opened, once for each pool.
async function recall(pools) {
  for (const pool of pools.filter((pool) => !samples.has(pool.name))) {
    // Who may list the pools need not be allowed to get one: their chart begins now.
    const history = await get(`pools/${encodeURIComponent(pool.name)}/history`).catch(() => ({ items: [] }));
    samples.set(pool.name, history.items.filter((held) => held.spot || held.onDemand).map(sample));
  }
}

// One look at a time; what changes meanwhile is looked at once more.
async function look() {
  if (asked) { again = true; return; }
  asked = Promise.all([get("status"), all("pools"), all("replacements"), all("fallbacks"), get("access")]);
  try {
    const answers = await asked;
    may = new Set(answers[4].may);
    byId("login").hidden = true;
    await recall(answers[1].items);
    draw(answers);
  } catch (error) {
    byId("summary").textContent = `Spot Guard does not answer: ${error.message}`;
  }
  asked = null;
  if (again) { again = false; setTimeout(look, 200); }
}

// A message of the stream, as the HTML standard has it: lines "event: ..." and "data: ...".
function take(message) {
  const field = (name) => message.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  if (field("event") === "changed") look();
  if (field("event") !== "step") return;
  byId("steps").prepend(drawStep(JSON.parse(field("data"))));
  while (byId("steps").children.length > STEPS_SHOWN) byId("steps").lastElementChild.remove();
}

// Follows what happens. Not by EventSource: that sends no token.
async function follow() {
  let pause = FIRST_PAUSE;
  for (;;) {
    try {
      const stream = await ask("events", { stream: true, headers: { accept: "text/event-stream" } });
      pause = FIRST_PAUSE;
      let rest = "";
      const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
      for (let read = await reader.read(); !read.done; read = await reader.read()) {
        const messages = (rest + read.value).split("\n\n");
        rest = messages.pop();
        messages.forEach(take);
      }
    } catch {
      // It is tried again below, and the summary tells who does not answer.
    }
    await new Promise((done) => setTimeout(done, pause * (0.5 + Math.random() / 2)));
    pause = Math.min(2 * pause, LONGEST_PAUSE);
  }
}

byId("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  sessionStorage.setItem("token", token);
  look();
});
byId("finished").addEventListener("change", look);
follow();
look();
// Durations grow also when nothing happens.
setInterval(look, 5000);
