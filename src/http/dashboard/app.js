"use strict";

// The boxes of the flow: number, name, place in the drawing.
const BOXES = [
  ["1", "Notice", 10, 20], ["2", "Scale up Spot", 165, 20], ["3", "Wait for it", 320, 20],
  ["3.1", "In service", 475, 20], ["3.2", "On-demand", 475, 95], ["4", "Taint", 630, 20],
  ["5", "Drain and end", 785, 20], ["6", "Monitor", 785, 262], ["7", "Healthy?", 630, 262], ["8", "Stable?", 475, 262],
  ["9", "Safe?", 320, 262], ["10", "Scale down", 165, 262], ["11", "Clean up", 10, 262], ["12", "Every 30 s", 475, 174],
];
const [WIDTH, HEIGHT] = [130, 62];
// From the edge of one box to that of another.
const ARROWS = [
  "M140 51H163", "M295 51H318", "M450 51H473", "M605 51H628", "M760 51H783",
  "M450 65C465 75 455 126 473 126", "M605 126C640 126 690 116 695 84",
  "M850 82V260", "M785 293H762", "M630 293H607", "M475 293H452", "M320 293H297", "M165 293H142",
  // What is not passed is looked at again: the loop.
  "M695 262C695 225 650 208 607 208", "M540 262V238", "M385 262C385 225 430 208 473 208",
  "M605 196C700 188 800 195 830 260",
];
const STEPS_SHOWN = 30;
const SAMPLES = 500;
const DAY = 24 * 3600;
// What is longer ago than this is no usual wait.
const BLOCKED_LONG = 300;
// The conditions of a pool that mean: somebody has to do something.
const ATTENTION = ["Accepted", "Observed", "Covered", "Watched", "Undisturbed"];

// Pauses between two attempts to follow what happens, in milliseconds.
const FIRST_PAUSE = 1000;
const LONGEST_PAUSE = 30000;

const samples = new Map();
// What box 9 says about the fallbacks that are unfolded, and when it was asked.
const safety = new Map();
let asked = null;
let again = false;
let last = null;
// What the caller may request.
let may = new Set();
// The token of the cluster that the caller has entered, for as long as the tab lives.
let token = sessionStorage.getItem("token") || "";
// Which pools are shown, and in which order: kept in the address.
const view = new URLSearchParams(location.search);

const byId = (id) => document.getElementById(id);

// Text always goes in as text: names of nodes and messages of AWS are not ours.
function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const element = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

function replace(id, children, otherwise) {
  const place = byId(id);
  const columns = place.tagName === "TBODY" ? 1 : 0;
  const none = () => columns ? element("tr", {}, element("td", { class: "quiet", colspan: "12" }, otherwise))
    : element(place.tagName === "UL" ? "li" : "p", { class: "quiet" }, otherwise);
  place.replaceChildren(...(children.length ? children : [none()]));
}

function when(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  return element("time", { datetime: text }, today ? at.toLocaleTimeString() : at.toLocaleString());
}

function span(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const [days, hours, minutes] = [Math.floor(whole / DAY), Math.floor((whole % DAY) / 3600), Math.floor((whole % 3600) / 60)];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

const secondsTo = (at, now) => (Date.parse(at) - Date.parse(now)) / 1000;
const isOver = (story) => Boolean(story.finishedAt);
const anchor = (story) => `story-${story.name}`;
const nameOf = (story) => story.node || story.name;

// What a person has to look at, the most urgent first.
function attention(status, pools, stories, fallbacks) {
  const found = [];
  const add = (rank, about, title, text, command, link) => found.push({ rank, about, title, text, command, link });
  for (const story of stories.filter((story) => !isOver(story))) {
    const explain = `kubectl spot-guard explain ${story.name}`;
    const link = `#${anchor(story)}`;
    if (story.deadline) {
      const left = secondsTo(story.deadline, status.now);
      const title = left > 0 ? `EC2 takes ${nameOf(story)} in ${span(left)}` : `EC2 took ${nameOf(story)} ${span(-left)} ago`;
      add(0, story.name, title, story.blockedBy[0]?.message || `box ${story.box}, ${story.phase}`, explain, link);
    }
    for (const held of story.blockedBy) {
      if (held.reason === "BothGroupsFailed") add(1, story.name, `Both markets are out of capacity for ${nameOf(story)}`, held.message, explain, link);
      const drains = ["5", "10"].includes(held.box) && held.seconds > BLOCKED_LONG;
      if (drains) add(2, story.name, `The drain of ${nameOf(story)} is held for ${span(held.seconds)}`, held.message, explain, link);
    }
  }
  for (const pool of pools) {
    for (const held of pool.conditions.filter((held) => held.status !== "True" && ATTENTION.includes(held.type))) {
      add(3, `pool ${pool.name}`, `Pool ${pool.name} is not ${held.type.toLowerCase()} (${held.reason})`, held.message,
        `kubectl describe spotpool ${pool.name}`, "#pools-title");
    }
  }
  for (const held of fallbacks.filter((held) => held.onDemandSeconds > DAY)) {
    add(4, held.replacement, `${held.node} has stood in for ${span(held.onDemandSeconds)}`,
      held.blockedBy[0]?.message || "", `kubectl spot-guard explain ${held.replacement}`, `#story-${held.replacement}`);
  }
  return found.sort((a, b) => a.rank - b.rank);
}

function drawAttention(found) {
  replace("attention", found.slice(0, 20).map((held) => element("li", {},
    element("strong", {}, element("a", { href: held.link }, held.title)), ` ${held.text} `, element("code", {}, held.command))),
  "Nothing.");
  if (found.length > 20) byId("attention").append(element("li", {}, `and ${found.length - 20} more`));
}

function dot(story, index, urgent) {
  const state = urgent.has(story.name) ? "late" : story.blockedBy.length ? "held" : "busy";
  const waits = story.blockedBy.length ? `, waits ${span(story.blockedBy[0].seconds)}: ${story.blockedBy[0].message}` : "";
  const label = `${nameOf(story)} at box ${story.box}${waits}`;
  return svg("a", { href: `#${anchor(story)}`, "aria-label": label },
    svg("title", {}, label), svg("circle", { class: state, cx: 14 + (index % 9) * 13, cy: 40 + Math.floor(index / 9) * 13, r: 5 }));
}

function drawFlow(stories, found) {
  const urgent = new Set(found.map((held) => held.about));
  const open = stories.filter((story) => !isOver(story));
  const boxes = BOXES.map(([number, name, x, y]) => {
    const here = open.filter((story) => story.box === number);
    const shown = here.slice(0, here.length > 18 ? 17 : 18);
    const dots = shown.length ? svg("g", { class: "at" }, ...shown.map((story, index) => dot(story, index, urgent)),
      here.length > shown.length ? svg("text", { x: 118, y: 57, "text-anchor": "end" }, `+${here.length - shown.length}`) : null) : null;
    return svg("g", { "data-box": number, class: here.length ? "here" : "", transform: `translate(${x} ${y})` },
      svg("rect", { width: WIDTH, height: HEIGHT, rx: 7 }), svg("text", { class: "number", x: 9, y: 21 }, number),
      svg("text", { x: number.length > 2 ? 35 : number.length > 1 ? 30 : 22, y: 21 }, name), dots);
  });
  const head = svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    svg("path", { d: "M0 0L8 4L0 8z" }));
  const arrows = ARROWS.map((d) => svg("path", { d, "marker-end": "url(#head)" }));
  byId("flow").replaceChildren(svg("svg", { viewBox: "0 0 925 336" }, svg("defs", {}, head), ...arrows, ...boxes));
}

// Asks for a reason; null if it is to be left.
function reasonFor(question) {
  const dialog = byId("ask");
  byId("question").textContent = question;
  byId("reason").value = "";
  dialog.showModal();
  return new Promise((done) => {
    const end = (value) => { dialog.close(); done(value); };
    dialog.oncancel = () => done(null);
    byId("yes").onclick = () => end(byId("reason").value.trim());
    byId("no").onclick = () => end(null);
    byId("reason").onkeydown = (event) => { if (event.key === "Enter") end(byId("reason").value.trim()); };
  });
}

// A button that requests something, for those who may.
function request(action, label, path, question) {
  if (!may.has(action)) return null;
  const button = element("button", { type: "button", "data-action": action }, label);
  button.addEventListener("click", async () => {
    const reason = await reasonFor(question);
    if (reason === null) return;
    button.disabled = true;
    const headers = { "idempotency-key": crypto.randomUUID(), ...(reason ? { "content-type": "application/json" } : {}) };
    try {
      const answer = await ask(path, { method: "POST", headers, body: reason ? JSON.stringify({ reason }) : undefined });
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
  const [first, until] = [Date.parse(held[0].at), Date.parse(now)];
  const x = (at) => until > first ? ((Date.parse(at) - first) * 100) / (until - first) : 0;
  const most = Math.max(1, ...held.flatMap((sample) => [sample.spot, sample.onDemand]));
  const y = (count) => 38 - (count * 36) / most;
  // What was so stays so until the next sample.
  const line = (key) => held.map((sample, index) =>
    `${x(sample.at)},${y(sample[key])} ${x(held[index + 1]?.at || now)},${y(sample[key])}`).join(" ");
  const label = `Instances in service of pool ${pool.name} in the last ${span((until - first) / 1000)}: ` +
    ["spot", "onDemand"].map((key) => `${key === "spot" ? "Spot" : "on-demand"} from ${held[0][key]} to ` +
      `${held.at(-1)[key]}, at the most ${Math.max(...held.map((sample) => sample[key]))}`).join("; ");
  return svg("svg", { viewBox: "0 0 100 40", preserveAspectRatio: "none", role: "img", "aria-label": label },
    ...[["spot", "spot"], ["onDemand", "on-demand"]].map(([key, name]) => svg("polyline", { class: name, points: line(key) })));
}

const REPLACERS = { SpotGuard: "Spot Guard", Group: "their group" };
const CAUSES = { Shortfall: "missing Spot instance", Adoption: "above the baseline" };

const isFull = (group) => group && group.inService >= group.desired;
const oldest = (pool, fallbacks) =>
  Math.max(0, ...fallbacks.filter((held) => held.pool === pool.name).map((held) => held.onDemandSeconds));
const owed = (pool) => (pool.scalingRequests || []).filter((request) => request.group === "Spot").flatMap((request) => request.shares)
  .filter((share) => share.balance !== "Raised" && share.balance !== "Even").length;
const savedBy = (pool, savings) => savings.find((held) => held.pool === pool.name)?.total.cost?.saved;
const isReady = (pool) => pool.conditions.find((held) => held.type === "Ready")?.status === "True";

// The columns of the pools: name, what is sorted by, what is shown.
const COLUMNS = [
  ["Pool", (pool) => pool.name, (pool) => [pool.name, pool.paused ? " (paused)" : "", pool.mode === "Act" ? "" : ` (${pool.mode})`]],
  ["Ready", (pool) => Number(isReady(pool)), (pool) => [isReady(pool) ? "yes" : "no"], (pool) => isReady(pool) ? "good" : "bad"],
  ["Spot", (pool) => pool.spot?.inService ?? -1, (pool) => [counts(pool.spot)],
    (pool) => !isFull(pool.spot) ? "bad" : owed(pool) ? "held" : "good"],
  ["On-demand", (pool) => pool.onDemand?.inService ?? -1, (pool) => [counts(pool.onDemand)]],
  ["Baseline", (pool) => pool.baseline ?? -1, (pool) => [pool.baseline === undefined ? "–" : `${pool.baseline}${pool.aboveBaseline ? ` (+${pool.aboveBaseline})` : ""}`]],
  ["Fallbacks", (pool) => pool.fallbacks, (pool) => [String(pool.fallbacks)]],
  ["Oldest", (pool, all) => oldest(pool, all.fallbacks), (pool, all) => [pool.fallbacks ? span(oldest(pool, all.fallbacks)) : "–"]],
  ["Owed", (pool) => owed(pool), (pool) => [String(owed(pool))]],
  ["Saved", (pool, all) => savedBy(pool, all.savings) ?? 0, (pool, all) => [savedBy(pool, all.savings)?.toFixed(2) ?? "–"]],
  ["Replaced by", (pool) => pool.replacedBy || "", (pool) => [REPLACERS[pool.replacedBy] || "–"]],
];

function counts(group) {
  return group ? `${group.inService} of ${group.desired}` : "not read yet";
}

// The address keeps what is chosen, so that it can be sent to somebody else.
function choose(key, value) {
  if (value) view.set(key, value); else view.delete(key);
  const search = view.toString();
  history.replaceState(null, "", `${location.pathname}${search ? `?${search}` : ""}${location.hash}`);
  if (last) drawPools(last);
}

function drawPools(all) {
  const sort = view.get("sort") || "Pool";
  const [name, down] = sort.startsWith("-") ? [sort.slice(1), -1] : [sort, 1];
  byId("pools-head").replaceChildren(element("tr", {}, ...COLUMNS.map(([title]) => {
    const button = element("button", { type: "button" }, title);
    button.addEventListener("click", () => choose("sort", title === name && down > 0 ? `-${title}` : title));
    return element("th", title === name ? { "aria-sort": down > 0 ? "ascending" : "descending" } : {}, button);
  }), element("th", {}, "In service"), element("th", {})));
  const by = (COLUMNS.find(([title]) => title === name) || COLUMNS[0])[1];
  const order = (a, b) => { const [x, y] = [by(a, all), by(b, all)]; return x < y ? -1 : x > y ? 1 : 0; };
  const wanted = (view.get("pools") || "").toLowerCase();
  const shown = all.pools.filter((pool) => pool.name.toLowerCase().includes(wanted)).sort((a, b) => down * order(a, b));
  replace("pools", shown.map((pool) => element("tr", { "data-pool": pool.name },
    ...COLUMNS.map(([, , show, kind]) => element("td", kind ? { class: kind(pool) } : {}, ...show(pool, all))),
    element("td", {}, chart(pool, all.status.now)), element("td", {}, pauseOf(pool, all.status.paused)))),
  all.pools.length ? "No pool has such a name." : "There is no SpotPool yet.");
}

function pauseOf(pool, allPaused) {
  if (allPaused) return null;
  return pool.paused
    ? request("Resume", "Resume", `pools/${pool.name}/resume`, `Let replacements of pool ${pool.name} begin again?`)
    : request("Pause", "Pause", `pools/${pool.name}/pause`, `Let no replacement of pool ${pool.name} begin? A node with a deadline does not wait.`);
}

function reasons(blockers) {
  return blockers.map((held) => element("p", { class: "why" },
    `Box ${held.box}: ${held.message} (for ${span(held.seconds)}; ${held.reason})`));
}

function drawFallback(fallback, now) {
  const until = fallback.returnNotBefore ? `, tried again in ${span(secondsTo(fallback.returnNotBefore, now))}` : "";
  const cost = fallback.estimatedExtraCost === undefined ? "–" : `about ${fallback.estimatedExtraCost.toFixed(2)}`;
  return element("tr", { "data-fallback": fallback.replacement },
    element("td", {}, element("a", { href: `#story-${fallback.replacement}` }, fallback.node)),
    element("td", {}, fallback.pool || "–"), element("td", {}, fallback.replacedNode || "a Spot instance"),
    element("td", {}, span(fallback.onDemandSeconds)), element("td", {}, cost),
    element("td", {}, ...(fallback.blockedBy.length ? reasons(fallback.blockedBy) : [`box ${fallback.box}`]), until),
    element("td", {}, request("Return", "Return now", `fallbacks/${fallback.replacement}/return`,
      `Return ${fallback.node} to Spot as soon as that is safe, without waiting until Spot is stable?`)));
}

function drawStep(step) {
  return element("li", {}, when(step.at),
    element("span", { class: "number" }, `box ${step.box}`), `${step.node}: ${step.message}`);
}

// How long each step lasted, drawn to scale.
function timeline(story, now) {
  const ends = story.finishedAt || now;
  const whole = secondsTo(ends, story.steps[0]?.at || ends);
  if (!(whole > 0)) return null;
  const parts = story.steps.map((step, index) => {
    const [from, lasted] = [secondsTo(step.at, story.steps[0].at), secondsTo(story.steps[index + 1]?.at || ends, step.at)];
    const kind = Number.parseFloat(step.box) < 6 ? 0 : Number.parseFloat(step.box) < 10 ? 1 : 2;
    return svg("rect", { class: `b${kind}`, x: (from * 1000) / whole, y: 0, width: Math.max(1, (lasted * 1000) / whole), height: 20 },
      svg("title", {}, `box ${step.box} ${step.outcome}: ${span(lasted)}`));
  });
  return svg("svg", { class: "timeline", viewBox: "0 0 1000 20", preserveAspectRatio: "none", role: "img",
    "aria-label": `${span(whole)} in ${parts.length} steps, drawn to scale` }, ...parts);
}

// Whether the node could go back now, as box 9 sees it; asked while the replacement is unfolded.
function safetyOf(story) {
  const node = story.fallback && !isOver(story) && story.capacity?.nodeName;
  if (!node) return [];
  const held = safety.get(node);
  if (!held || Date.now() - held.at > 10000) {
    safety.set(node, { ...held, at: Date.now() });
    get(`nodes/${encodeURIComponent(node)}/safety`).then((report) => safety.set(node, { at: Date.now(), report })).catch(() => {});
  }
  const report = held?.report;
  if (!report) return [];
  return [element("p", { class: "why" }, report.safe ? `Box 9: ${node} could be drained now.` : `Box 9: ${node} cannot be drained now.`),
    ...report.blockers.map((blocker) => element("p", { class: "why" }, `${blocker.message}. Needed: ${blocker.hint} (${blocker.reason})`))];
}

function drawStory(story, open, now) {
  const about = isOver(story) ? "over" : `at box ${story.box}, ${story.phase}`;
  const facts = [story.nextAttemptAt && !isOver(story) ? `Capacity is requested again in ${span(secondsTo(story.nextAttemptAt, now))}.` : null,
    story.deadline && !isOver(story) ? `EC2 takes the instance in ${span(secondsTo(story.deadline, now))}.` : null].filter(Boolean);
  const inside = open ? [...facts.map((fact) => element("p", { class: "why" }, fact)), ...reasons(story.blockedBy),
    timeline(story, now), ...safetyOf(story), element("ol", {}, ...story.steps.map(drawStep)), trace(story),
    isOver(story) ? null : request("Cancel", "Cancel", `replacements/${story.name}/cancel`,
      `Cancel the replacement of ${nameOf(story)}? Taint and cordon are removed.`)] : [];
  const drawn = element("details", { id: anchor(story), "data-replacement": story.name },
    element("summary", {}, element("strong", {}, nameOf(story)), ` ${about}`, story.fallback ? ", on-demand" : "",
      CAUSES[story.cause] ? `, ${CAUSES[story.cause]}` : "", story.pool ? `, pool ${story.pool}` : ""), ...inside);
  drawn.open = open;
  drawn.addEventListener("toggle", () => { if (drawn.open !== open && last) drawStories(last); });
  return drawn;
}

function trace(story) {
  if (!story.traceId) return null;
  const shown = story.traceUrl ? element("a", { href: story.traceUrl, rel: "noreferrer" }, story.traceId) : story.traceId;
  return element("p", { class: "quiet" }, "trace ", shown);
}

function drawStories({ stories, status }) {
  const open = new Set([...document.querySelectorAll("#stories details[open]")].map((held) => held.id));
  const focused = document.activeElement?.closest?.("#stories details")?.id;
  const shown = stories.filter((story) => byId("finished").checked || !isOver(story) || `#${anchor(story)}` === location.hash)
    .sort((a, b) => (b.startedAt || "").localeCompare(a.startedAt || ""));
  replace("stories", shown.map((story) => drawStory(story, open.has(anchor(story)), status.now)), "No node is being replaced.");
  if (focused) byId(focused)?.querySelector("summary").focus();
}

// Who follows a link to a replacement sees it unfolded.
function unfold() {
  const id = location.hash.slice(1);
  if (!id.startsWith("story-") || !last) return;
  drawStories(last);
  const found = byId(id);
  if (found && !found.open) found.open = true;
  found?.scrollIntoView({ block: "nearest" });
}

function drawDay({ stories, savings, status }) {
  const lately = stories.filter((story) => isOver(story) && secondsTo(status.now, story.finishedAt) < DAY);
  const fellBack = (story) => story.steps.some((step) => step.box === "6");
  const count = (is) => lately.filter(is).length;
  const isDone = (story) => story.phase === "Completed";
  const today = status.now.slice(0, 10);
  const days = savings.flatMap((held) => held.days).filter((held) => held.day === today);
  const sum = (of) => days.reduce((total, held) => total + (of(held) || 0), 0);
  const known = days.some((held) => held.cost);
  const entry = (name, value) => [element("dt", {}, name), element("dd", {}, value)];
  byId("day").replaceChildren(
    ...entry("replaced on Spot", String(count((story) => isDone(story) && !fellBack(story)))),
    ...entry("fell back and returned", String(count((story) => isDone(story) && fellBack(story)))),
    ...entry("cancelled", String(count((story) => story.phase === "Cancelled"))),
    ...entry("fallback hours today (UTC)", sum((held) => held.fallbackHours).toFixed(1)),
    ...entry("saved today (UTC)", known ? sum((held) => held.cost?.saved).toFixed(2) : "unknown: the pools have no hourlyPrices"));
}

function drawSteps({ stories }) {
  const steps = stories.flatMap((story) => story.steps).sort((a, b) => b.at.localeCompare(a.at)).slice(0, STEPS_SHOWN);
  replace("steps", steps.map(drawStep), "Nothing yet.");
}

function draw([status, pools, stories, fallbacks, , savings]) {
  const { open, finished } = status.replacements;
  const held = pools.items.flatMap((pool) => pool.conditions.filter((held) => held.type === "Paused" && held.status === "True"));
  byId("summary").textContent =
    `${open} under way, ${status.replacements.fallbacks} on-demand, ${finished} over; version ${status.version}, ` +
    `${status.leader ? "this replica acts" : "this replica follows"}${status.ready ? "" : ", not ready: see /readyz at the port for probes"}` +
    `${status.paused ? "; everything is paused" : ""}${held.length ? ` (${held[0].message})` : ""}`;
  byId("all").replaceChildren(...[status.paused
    ? request("Resume", "Resume everything", "resume", "Let replacements begin again?")
    : request("Pause", "Pause everything", "pause", "Let no replacement begin? A node with a deadline does not wait.")].filter(Boolean));
  for (const pool of pools.items) {
    const known = samples.get(pool.name) || [];
    const seen = sample({ ...pool, at: status.now });
    const same = known.at(-1)?.spot === seen.spot && known.at(-1)?.onDemand === seen.onDemand;
    samples.set(pool.name, same ? known : [...known, seen].slice(-SAMPLES));
  }
  last = { status, pools: pools.items, stories: stories.items, fallbacks: fallbacks.items, savings: savings.items };
  const found = attention(status, last.pools, last.stories, last.fallbacks);
  drawAttention(found);
  drawFlow(last.stories, found);
  drawPools(last);
  replace("fallbacks", last.fallbacks.map((held) => drawFallback(held, status.now)), "None: everything runs on Spot.");
  drawDay(last);
  drawStories(last);
  drawSteps(last);
}

// What a request answers with; an unknown caller needs a token.
async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(`/api/v1/${path}`, { ...options, headers });
  if (answer.status === 401) byId("login").hidden = false;
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail || `/api/v1/${path}: ${answer.status}`), { status: answer.status });
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
  asked = Promise.all([get("status"), all("pools"), all("replacements"), all("fallbacks"), get("access"), all("savings")]);
  try {
    const answers = await asked;
    may = new Set(answers[4].may);
    byId("login").hidden = true;
    await recall(answers[1].items);
    const isFirst = !last;
    draw(answers);
    if (isFirst) unfold();
  } catch (error) {
    byId("summary").textContent = error.status === 401 && !token ? "Who reads shows a token of the cluster."
      : `Spot Guard does not answer: ${error.message}`;
  }
  asked = null;
  if (again) { again = false; setTimeout(look, 200); }
}

// A message of the stream, as the HTML standard has it: lines "event: ..." and "data: ...". The page is drawn
// from what is stored, so nothing is missing after a time without the stream.
function take(message) {
  if (message.split("\n").some((line) => line === "event: changed" || line === "event: step")) look();
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
byId("filter").value = view.get("pools") || "";
byId("filter").addEventListener("input", () => choose("pools", byId("filter").value.trim()));
addEventListener("hashchange", unfold);
follow();
look();
// Durations grow also when nothing happens.
setInterval(look, 5000);
