"use strict";

// The boxes of the flow: number, name, place in the drawing.
const BOXES = [
  ["1", "Notice", 10, 20], ["2", "Scale up Spot", 165, 20], ["3", "Wait for it", 320, 20],
  ["3.1", "In service", 475, 20], ["3.2", "On-demand", 475, 95], ["4", "Taint", 630, 20],
  ["5", "Drain and end", 785, 20], ["6", "Monitor", 785, 262], ["7", "Healthy?", 630, 262], ["8", "Stable?", 475, 262],
  ["9", "Safe?", 320, 262], ["10", "Scale down", 165, 262], ["11", "Clean up", 10, 262],
];
const [WIDTH, HEIGHT] = [130, 62];
// From the edge of one box to that of another.
const ARROWS = [
  "M140 51H163", "M295 51H318", "M450 51H473", "M605 51H628", "M760 51H783",
  "M450 65C465 75 455 126 473 126", "M605 126C640 126 690 116 695 84",
  "M850 82V260", "M785 293H762", "M630 293H607", "M475 293H452", "M320 293H297", "M165 293H142",
  // What is not passed is looked at again: the loop.
  "M385 262C385 225 400 212 430 212H785C815 212 830 228 830 260", "M540 262V214", "M695 262V214",
];
// No replacement is ever at box 12: it is the loop itself.
const [LOOP, LOOP_AT] = [["12", "Every 30 s"], [575, 202]];
// Dots in a box: in a row, and in all.
const [ROW, FULL] = [9, 18];
const STEPS_SHOWN = 30;
const PODS_SHOWN = 10;
// A drain that somebody looks at is asked about again after so many milliseconds.
const ASKED_AGAIN = 10000;
// The width of a timeline with an axis, how many marks that has at most, and how many seconds may lie between two.
const [SCALE, TICKS] = [900, 8];
const STEPS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 2592000];
const SAMPLES = 500;
const DAY = 24 * 3600;
// What is longer ago than this is no usual wait.
const BLOCKED_LONG = 300;
// The reasons by which a disruption budget holds a drain.
const BUDGETS = ["BudgetExhausted", "BudgetNotObserved", "SeveralBudgets"];
// How replacements end, or stand.
const ENDINGS = {
  OnSpot: "Replaced on Spot", Returned: "Fell back, and returned to Spot", FallbackLost: "Fell back, and what stood in was lost",
  ByGroup: "Replaced by its group", Released: "On-demand left to its owner", DrainedOnly: "Drained only",
  NothingDone: "Nothing was done", FalseNotice: "False notice", GivenUp: "Given up", Cancelled: "Cancelled",
};
// The rows that are always there.
const OUTCOMES = ["Replaced on Spot", "Fell back, and returned to Spot", "On-demand still", "Under way still"];
// The phases in which the deadline of the old instance presses nobody any more: it is being terminated, or gone.
const PAST_DEADLINE = ["Terminating", "OnFallback", "Returning", "ScalingDown"];
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
// The id of the last step that the stream has told.
let lastId = null;
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
  const none = () => columns ? element("tr", {}, element("td", { class: "quiet", colspan: "13" }, otherwise))
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
// The record keeps its deadline for as long as it lives.
const isPressed = (story) => Boolean(story.deadline) && !isOver(story) && !PAST_DEADLINE.includes(story.phase);
const anchor = (story) => `replacement-${story.name}`;
const nameOf = (story) => story.node || story.name;

// What a person has to look at, the most urgent first.
function attention(status, pools, stories, fallbacks) {
  const found = [];
  const add = (rank, about, title, { message, hint, reason }, command, link) =>
    found.push({ rank, about, title, text: reason ? `${message} (${reason})` : message, hint, command, link });
  for (const story of stories.filter((story) => !isOver(story))) {
    const explain = `kubectl spot-guard explain ${story.name}`;
    const link = `#${anchor(story)}`;
    if (isPressed(story)) {
      const left = secondsTo(story.deadline, status.now);
      const title = left > 0 ? `EC2 takes ${nameOf(story)} in ${span(left)}` : `EC2 took ${nameOf(story)} ${span(-left)} ago`;
      const moves = { message: `box ${story.box}, ${story.phase}`, hint: "Nothing: no reason holds it. The command shows its steps." };
      add(Math.min(0.9, Math.max(0, left) / DAY), story.name, title, story.blockedBy[0] || moves, explain, link);
    }
    for (const held of story.blockedBy) {
      if (held.reason === "BothGroupsFailed") add(1, story.name, `Both markets are out of capacity for ${nameOf(story)}`, held, explain, link);
      // The wait before the next return is planned.
      const drains = ["5", "10"].includes(held.box) && held.reason !== "ReturnRetry" && held.seconds > BLOCKED_LONG;
      if (drains) add(2, story.name, `The drain of ${nameOf(story)} is held for ${span(held.seconds)}`, held, explain, link);
    }
  }
  for (const pool of pools) {
    for (const held of pool.conditions.filter((held) => held.status !== "True" && ATTENTION.includes(held.type))) {
      add(3, `pool ${pool.name}`, `Pool ${pool.name} is not ${held.type.toLowerCase()} (${held.reason})`,
        { message: held.message, hint: pool.hints?.[held.reason] }, `kubectl describe spotpool ${pool.name}`, "#pools-title");
    }
  }
  for (const held of fallbacks.filter((held) => held.onDemandSeconds > DAY)) {
    const moves = { message: `box ${held.box}`, hint: "See its steps by the command. Return now does not wait until Spot is stable." };
    add(4, held.replacement, `${held.node} has stood in for ${span(held.onDemandSeconds)}`,
      held.blockedBy[0] || moves, `kubectl spot-guard explain ${held.replacement}`, `#replacement-${held.replacement}`);
  }
  return found.sort((a, b) => a.rank - b.rank);
}

function drawAttention(found) {
  replace("attention", found.slice(0, 20).map((held) => element("li", {},
    element("strong", {}, element("a", { href: held.link }, held.title)), ` ${held.text} `,
    held.hint ? element("p", { class: "hint" }, `What to do: ${held.hint}`) : null, element("code", {}, held.command))),
  "Nothing.");
  if (found.length > 20) byId("attention").append(element("li", {}, `and ${found.length - 20} more`));
}

// What never changes is drawn once, so that a dot can move from box to box.
function flow() {
  const held = byId("flow").querySelector("svg");
  if (held) return held;
  const boxes = BOXES.map(([number, name, x, y]) => svg("g", { "data-place": number, transform: `translate(${x} ${y})` },
    svg("rect", { width: WIDTH, height: HEIGHT, rx: 7 }), svg("text", { class: "number", x: 9, y: 21 }, number),
    svg("text", { x: number.length > 2 ? 35 : number.length > 1 ? 30 : 22, y: 21 }, name),
    svg("text", { class: "lately", x: 9, y: 57 }), svg("text", { class: "more", x: 121, y: 57, "text-anchor": "end" })));
  const head = svg("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" },
    svg("path", { d: "M0 0L8 4L0 8z" }));
  const arrows = ARROWS.map((d) => svg("path", { d, "marker-end": "url(#head)" }));
  const loop = svg("g", { "data-loop": LOOP[0] }, svg("text", { class: "number", x: LOOP_AT[0], y: LOOP_AT[1] }, LOOP[0]),
    svg("text", { x: LOOP_AT[0] + 21, y: LOOP_AT[1] }, LOOP[1]));
  const drawn = svg("svg", { viewBox: "0 0 925 336" }, svg("defs", {}, head), ...arrows, loop, ...boxes, svg("g", { id: "dots" }));
  byId("flow").replaceChildren(drawn);
  return drawn;
}

// The dot of a replacement: the same one for as long as it is shown.
function dot(story, [x, y], urgent) {
  const link = byId(`dot-${story.name}`) || svg("a", { id: `dot-${story.name}`, href: `#${anchor(story)}` },
    svg("title"), svg("circle", { r: 5 }));
  const state = urgent.has(story.name) ? "late" : story.blockedBy.length ? "held" : "busy";
  const waits = story.blockedBy.length ? `, waits ${span(story.blockedBy[0].seconds)}: ${story.blockedBy[0].message}` : "";
  const label = `${nameOf(story)} at box ${story.box}${waits}`;
  fill(link, { "aria-label": label, "data-box": story.box }, []);
  fill(link.querySelector("circle"), { class: state, cx: x, cy: y }, []);
  link.querySelector("title").textContent = label;
  return link;
}

// How many steps each box has made in the last day.
function lately(stories, now) {
  const counts = new Map();
  for (const step of stories.flatMap((story) => story.steps)) {
    if (secondsTo(now, step.at) < DAY) counts.set(step.box, (counts.get(step.box) || 0) + 1);
  }
  return counts;
}

function drawFlow({ stories, status }, found) {
  const [drawn, urgent, counts] = [flow(), new Set(found.map((held) => held.about)), lately(stories, status.now)];
  const open = stories.filter((story) => !isOver(story));
  const dots = BOXES.flatMap(([number, , x, y]) => {
    const here = open.filter((story) => story.box === number);
    const shown = here.slice(0, here.length > FULL ? FULL - 1 : FULL);
    const box = drawn.querySelector(`[data-place="${number}"]`);
    box.setAttribute("class", here.length ? "here" : "");
    box.querySelector(".lately").textContent = counts.has(number) ? `24 h: ${counts.get(number)}` : "";
    box.querySelector(".more").textContent = here.length > shown.length ? `+${here.length - shown.length}` : "";
    const place = (index) => [x + 14 + (index % ROW) * 13, y + 34 + Math.floor(index / ROW) * 12];
    return shown.map((story, index) => dot(story, place(index), urgent));
  });
  const layer = byId("dots");
  for (const gone of [...layer.children].filter((held) => !dots.includes(held))) gone.remove();
  layer.append(...dots.filter((held) => held.parentNode !== layer));
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
  const button = element("button", { type: "button", "data-action": action, "data-key": path }, label);
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
const owed = (pool) => (pool.spotStanding?.owed || 0) + (pool.onDemandStanding?.owed || 0);
// A sum of money, and of how many days it is.
const costOf = (pool, savings, key) => savings.find((held) => held.pool === pool.name)?.total.cost?.[key];
function money(pool, savings, key) {
  const cost = costOf(pool, savings, key);
  return cost === undefined ? "–" : `${cost.toFixed(2)} in ${savings.find((held) => held.pool === pool.name).days.length} d`;
}
// Of both groups, by the standing that the controller computes from its ledger.
function standing(pool, key) {
  const [spot, onDemand] = [pool.spotStanding?.[key], pool.onDemandStanding?.[key]];
  if (spot === undefined && onDemand === undefined) return "–";
  return `${spot ?? "?"} Spot, ${onDemand ?? "?"} on-demand`;
}
const isReady = (pool) => pool.conditions.find((held) => held.type === "Ready")?.status === "True";

// The columns of the pools: name, what is sorted by, what is shown.
const COLUMNS = [
  ["Pool", (pool) => pool.name, (pool) => [pool.name, pool.paused ? " (paused)" : "", pool.mode === "Act" ? "" : ` (${pool.mode})`]],
  ["Ready", (pool) => Number(isReady(pool)), (pool) => [isReady(pool) ? "yes" : "no"], (pool) => isReady(pool) ? "good" : "bad"],
  ["Spot", (pool) => pool.spot?.inService ?? -1, (pool) => [counts(pool.spot)],
    (pool) => !isFull(pool.spot) ? "bad" : pool.spotStanding?.owed ? "held" : "good"],
  ["On-demand", (pool) => pool.onDemand?.inService ?? -1, (pool) => [counts(pool.onDemand)]],
  ["Baseline", (pool) => (pool.spotStanding?.baseline ?? -1) + (pool.onDemandStanding?.baseline ?? 0),
    (pool) => [standing(pool, "baseline"), pool.aboveBaseline ? ` (${pool.aboveBaseline} above the ${pool.baseline} of its spec)` : ""]],
  ["Fallbacks", (pool) => pool.fallbacks, (pool) => [String(pool.fallbacks)]],
  ["Oldest", (pool, all) => oldest(pool, all.fallbacks), (pool, all) => [pool.fallbacks ? span(oldest(pool, all.fallbacks)) : "–"]],
  ["Owed", (pool) => owed(pool), (pool) => [owed(pool) ? standing(pool, "owed") : "0"], (pool) => owed(pool) ? "held" : ""],
  ["Fallback cost", (pool, all) => costOf(pool, all.savings, "fallbacks") ?? 0, (pool, all) => [money(pool, all.savings, "fallbacks")]],
  ["Saved", (pool, all) => costOf(pool, all.savings, "saved") ?? 0, (pool, all) => [money(pool, all.savings, "saved")]],
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
    const button = element("button", { type: "button", "data-key": `sort-${title}` }, title);
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
    `Box ${held.box}: ${held.message} (for ${span(held.seconds)}; ${held.reason}). `,
    held.hint ? element("span", { class: "hint" }, `What to do: ${held.hint}`) : null));
}

function drawFallback(fallback, now) {
  const until = fallback.returnNotBefore ? `, tried again in ${span(secondsTo(fallback.returnNotBefore, now))}` : "";
  const cost = fallback.estimatedExtraCost === undefined ? "–" : `about ${fallback.estimatedExtraCost.toFixed(2)}`;
  return element("tr", { "data-fallback": fallback.replacement },
    element("td", {}, element("a", { href: `#replacement-${fallback.replacement}` }, fallback.node)),
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
    return svg("rect", { class: `b${kindOf(step.box)}`, x: (from * 1000) / whole, y: 0, width: Math.max(1, (lasted * 1000) / whole), height: 20 },
      svg("title", {}, `box ${step.box} ${step.outcome}: ${span(lasted)}`));
  });
  return svg("svg", { class: "timeline", viewBox: "0 0 1000 20", preserveAspectRatio: "none", role: "img",
    "aria-label": `${span(whole)} in ${parts.length} steps, drawn to scale` }, ...parts);
}

// The node whose drain is under way, or would be the next one.
function drainOf(story) {
  if (isOver(story)) return null;
  if (story.phase === "Draining") return story.node || null;
  return ["OnFallback", "Returning"].includes(story.phase) ? story.capacity?.nodeName : null;
}

// What the API says of a drain of that node now; asked while somebody looks at it.
function reportOn(node) {
  const held = safety.get(node);
  if (!held || Date.now() - held.at > ASKED_AGAIN) {
    safety.set(node, { ...held, at: Date.now() });
    get(`nodes/${encodeURIComponent(node)}/safety`).then((report) => ({ report }), (error) => ({ error: error.message }))
      .then((answer) => { safety.set(node, { at: Date.now(), ...answer }); if (last) drawAll(); });
  }
  return held;
}

// How far a drain has come, or whether the node could go back now, as box 9 sees it.
function safetyOf(story) {
  const node = drainOf(story);
  const held = node && reportOn(node);
  const why = (...text) => element("p", { class: "why" }, ...text);
  if (held?.error) return [why(`What is left on ${node} is not known: ${held.error}`)];
  if (!held?.report) return [];
  const { safe, blockers, podsToMove } = held.report;
  const drains = story.phase !== "OnFallback";
  const pods = podsToMove.slice(0, PODS_SHOWN).join(", ") + (podsToMove.length > PODS_SHOWN ? ` and ${podsToMove.length - PODS_SHOWN} more` : "");
  const left = podsToMove.length === 1 ? "1 pod is left" : `${podsToMove.length} pods are left`;
  // Of a drain that has begun box 9 is passed: what holds its evictions counts.
  const holds = drains ? blockers.filter((blocker) => BUDGETS.includes(blocker.reason)) : blockers;
  return [drains ? why(`${left} on ${node}${pods ? `: ${pods}` : ""}.`)
    : why(safe ? `Box 9: ${node} could be drained now.` : `Box 9: ${node} cannot be drained now.`),
  ...holds.map((blocker) => why(`${blocker.message}. Needed: ${blocker.hint} (${blocker.reason})`))];
}

// Times at which an axis from one moment to another is marked: on the clock, and not too many.
function ticks(from, until) {
  const step = STEPS.find((seconds) => (until - from) / (seconds * 1000) <= TICKS) * 1000 || STEPS.at(-1) * 1000;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= until && found.length <= TICKS; at += step) found.push(at);
  const options = step < 60000 ? { timeStyle: "medium" } : step < DAY * 1000 ? { timeStyle: "short" } : { dateStyle: "short" };
  return found.map((at) => [at, new Intl.DateTimeFormat(undefined, options).format(at)]);
}

const kindOf = (box) => (Number.parseFloat(box) < 6 ? 0 : Number.parseFloat(box) < 10 ? 1 : 2);

// The steps to scale with an axis; their text is in the table below it.
function scale(story, ends) {
  const [from, until] = [Date.parse(story.steps[0].at), Date.parse(ends)];
  const x = (at) => 10 + ((at - from) * (SCALE - 20)) / Math.max(1, until - from);
  const parts = story.steps.flatMap((step, index) => {
    const [left, right] = [x(Date.parse(step.at)), x(Date.parse(story.steps[index + 1]?.at || ends))];
    const width = Math.max(1, right - left);
    return [svg("rect", { class: `b${kindOf(step.box)}`, x: left, y: 16, width, height: 24 },
      svg("title", {}, `box ${step.box} ${step.outcome}: ${span(secondsTo(story.steps[index + 1]?.at || ends, step.at))}`)),
    width > 26 ? svg("text", { x: left + width / 2, y: 11, "text-anchor": "middle" }, step.box) : null];
  });
  const marks = ticks(from, until).flatMap(([at, label]) => [svg("line", { x1: x(at), y1: 42, x2: x(at), y2: 48 }),
    svg("text", { x: x(at), y: 61, "text-anchor": x(at) < 40 ? "start" : x(at) > SCALE - 40 ? "end" : "middle" }, label)]);
  return svg("svg", { class: "scale", viewBox: `0 0 ${SCALE} 66`, role: "img",
    "aria-label": `${story.steps.length} steps in ${span((until - from) / 1000)}, drawn to scale; the table has them as text` },
  svg("line", { x1: 10, y1: 42, x2: SCALE - 10, y2: 42 }), ...parts.filter(Boolean), ...marks);
}

function rowOf(step, lasted) {
  return element("tr", {}, element("td", {}, step.box), element("td", {}, when(step.at)), element("td", {}, span(lasted)),
    element("td", {}, step.outcome), element("td", {}, `${step.node}: ${step.message}`));
}

// One replacement, and nothing else.
function drawAlone({ stories, status }, name) {
  const others = new URLSearchParams(view);
  others.delete("replacement");
  byId("back").href = `?${others}`;
  const story = stories.find((story) => story.name === name);
  byId("alone-title").textContent = story ? `Replacement of ${nameOf(story)}` : `Replacement ${name}`;
  if (!story) {
    byId("alone-facts").replaceChildren(element("p", { class: "quiet" }, "There is no such replacement. One that is over is kept for a while only."));
    ["alone-scale", "alone-steps"].forEach((id) => byId(id).replaceChildren());
    return;
  }
  const ends = story.finishedAt || status.now;
  byId("alone-facts").replaceChildren(element("p", {}, describe(story)), ...facts(story, status.now), ...reasons(story.blockedBy),
    ...safetyOf(story), ...[trace(story), cancel(story)].filter(Boolean));
  byId("alone-scale").replaceChildren(...(story.steps.length ? [scale(story, ends)] : []));
  replace("alone-steps", story.steps.map((step, index) => rowOf(step, secondsTo(story.steps[index + 1]?.at || ends, step.at))), "No step yet.");
}

function cancel(story) {
  return isOver(story) ? null : request("Cancel", "Cancel", `replacements/${story.name}/cancel`,
    `Cancel the replacement of ${nameOf(story)}? Taint and cordon are removed.`);
}

// What is known of it in one line.
function describe(story) {
  return `${isOver(story) ? "over" : `at box ${story.box}, ${story.phase}`}${story.fallback ? ", on-demand" : ""}` +
    `${CAUSES[story.cause] ? `, ${CAUSES[story.cause]}` : ""}${story.pool ? `, pool ${story.pool}` : ""}`;
}

function facts(story, now) {
  const known = [story.nextAttemptAt && !isOver(story) ? `Capacity is requested again in ${span(secondsTo(story.nextAttemptAt, now))}.` : null,
    isPressed(story) ? `EC2 takes the instance in ${span(secondsTo(story.deadline, now))}.` : null];
  return known.filter(Boolean).map((fact) => element("p", { class: "why" }, fact));
}

function drawStory(story, open, now) {
  const alone = new URLSearchParams(view);
  alone.set("replacement", story.name);
  const inside = open ? [...facts(story, now), ...reasons(story.blockedBy),
    timeline(story, now), ...safetyOf(story), element("p", {}, element("a", { href: `?${alone}` }, "On a page of its own, with times")),
    element("ol", {}, ...story.steps.map(drawStep)), trace(story), cancel(story)] : [];
  const drawn = element("details", { id: anchor(story), "data-replacement": story.name },
    element("summary", {}, element("strong", {}, nameOf(story)), ` ${describe(story)}`), ...inside);
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
  if (!id.startsWith("replacement-") || !last || view.get("replacement")) return;
  drawStories(last);
  const found = byId(id);
  if (found && !found.open) found.open = true;
  found?.scrollIntoView({ block: "nearest" });
}

// How a replacement ended, or how it stands.
function outcomeOf(story) {
  if (story.outcome) return ENDINGS[story.outcome] || story.outcome;
  return story.fallback ? "On-demand still" : "Under way still";
}

// For how many hours of the last day an on-demand instance stood in.
function fallbackHours(story, now) {
  if (story.capacity?.group !== "OnDemand") return 0;
  const returned = story.steps.findLast((step) => step.outcome === "ScaledDown")?.at;
  const from = Math.max(secondsTo(story.capacity.readyAt, now), -DAY);
  return Math.max(0, Math.min(0, secondsTo(returned || story.finishedAt || now, now)) - from) / 3600;
}

// What such an hour costs more than Spot, by the account of the pool; null if nobody knows.
function hourlyExtra(pool, savings) {
  const total = savings.find((held) => held.pool === pool)?.total;
  return total?.cost && total.fallbackHours > 0 ? total.cost.fallbacks / total.fallbackHours : null;
}

// The last 24 hours by outcome, out of the records; and two days in UTC, out of the accounts of the pools.
function drawDay({ stories, savings, status }) {
  const rows = new Map(OUTCOMES.map((outcome) => [outcome, { count: 0, hours: 0, cost: 0, isKnown: true }]));
  for (const story of stories.filter((story) => !isOver(story) || secondsTo(status.now, story.finishedAt) < DAY)) {
    const outcome = outcomeOf(story);
    if (!rows.has(outcome)) rows.set(outcome, { count: 0, hours: 0, cost: 0, isKnown: true });
    const [row, hours, extra] = [rows.get(outcome), fallbackHours(story, status.now), hourlyExtra(story.pool, savings)];
    row.count += 1;
    row.hours += hours;
    row.cost += hours * (extra || 0);
    row.isKnown &&= extra !== null || hours === 0;
  }
  replace("day", [...rows].map(([outcome, { count, hours, cost, isKnown }]) => element("tr", { "data-outcome": outcome },
    element("td", {}, outcome), element("td", {}, String(count)), element("td", {}, hours.toFixed(1)),
    element("td", {}, !hours ? "–" : isKnown ? `about ${cost.toFixed(2)}` : "unknown"))), "");
  const dayOf = (at) => new Date(at).toISOString().slice(0, 10);
  const [now, names] = [Date.parse(status.now), ["Yesterday", "So far"]];
  const days = [dayOf(now - DAY * 1000), dayOf(now)].map((day) => savings.flatMap((held) => held.days).filter((held) => held.day === day));
  const row = (name, of) => element("tr", {}, element("th", { scope: "row" }, name), ...days.map((held) => element("td", {}, of(held))));
  const sum = (held, of) => held.reduce((total, one) => total + (of(one) || 0), 0);
  const hours = (key) => (held) => held.length ? sum(held, (one) => one[key]).toFixed(1) : "–";
  const cost = (key) => (held) => held.some((one) => one.cost) ? sum(held, (one) => one.cost?.[key]).toFixed(2) : "unknown";
  byId("days-head").replaceChildren(element("tr", {}, element("th", {}, "In UTC"),
    ...[now - DAY * 1000, now].map((at, index) => element("th", {}, `${names[index]}, ${dayOf(at)}`))));
  byId("days").replaceChildren(row("Hours of Spot nodes", hours("spotHours")), row("Hours of on-demand nodes", hours("onDemandHours")),
    row("Of these, hours of fallbacks", hours("fallbackHours")), row("Fallbacks cost more than Spot", cost("fallbacks")),
    row("Saved against all on-demand", cost("saved")));
}

function drawSteps({ stories }) {
  const steps = stories.flatMap((story) => story.steps).sort((a, b) => b.at.localeCompare(a.at)).slice(0, STEPS_SHOWN);
  replace("steps", steps.map(drawStep), "Nothing yet.");
}

const SOURCES = { Namespace: "by a label of the namespace", Pool: "in its spec" };

// A pause: what it holds, by whom, and why.
function drawPause(held) {
  const by = held.by ? `by ${held.by}` : SOURCES[held.source] || "";
  const since = held.since ? [" since ", when(held.since), " "] : [" "];
  return element("li", {}, held.pool ? `Pool ${held.pool} is paused` : "Everything is paused", ...since, by,
    held.reason ? `: ${held.reason}` : "", held.spotAction ? ` (SpotAction ${held.spotAction})` : "");
}

// Who acts in which cluster, and how old is what it knows of AWS.
function drawHeader(status) {
  const { open, finished, fallbacks } = status.replacements;
  byId("cluster").textContent = status.clusterName || "";
  document.title = status.clusterName ? `${status.clusterName} – Spot Guard` : "Spot Guard";
  byId("summary").textContent = `${open} under way, ${fallbacks} on-demand, ${finished} over` +
    `${status.ready ? "" : "; not ready: see /readyz at the port for probes"}${status.paused ? "; everything is paused" : ""}`;
  const acts = status.leader ? "this replica acts" : "this replica follows";
  const leader = status.holder ? `The leader is ${status.holder}, ${acts}` : `No leader is known, ${acts}`;
  const read = status.observedAt ? `AWS was read ${span(-secondsTo(status.observedAt, status.now))} ago`
    : status.leader ? "AWS was not read yet" : "When AWS was read is known to the leader alone";
  byId("facts").textContent = `${leader}. ${read}. Version ${status.version}.`;
  byId("pauses").replaceChildren(...status.pauses.map(drawPause));
  byId("all").replaceChildren(...[status.paused
    ? request("Resume", "Resume everything", "resume", "Let replacements begin again?")
    : request("Pause", "Pause everything", "pause", "Let no replacement begin? A node with a deadline does not wait.")].filter(Boolean));
}

function draw([status, pools, stories, fallbacks, , savings]) {
  for (const pool of pools.items) {
    const known = samples.get(pool.name) || [];
    const seen = sample({ ...pool, at: status.now });
    const same = known.at(-1)?.spot === seen.spot && known.at(-1)?.onDemand === seen.onDemand;
    samples.set(pool.name, same ? known : [...known, seen].slice(-SAMPLES));
  }
  last = { status, pools: pools.items, stories: stories.items, fallbacks: fallbacks.items, savings: savings.items };
  drawAll();
}

// Draws what was read last: one replacement, or everything.
function drawAll() {
  const key = document.activeElement?.dataset?.key;
  const name = view.get("replacement");
  drawHeader(last.status);
  for (const section of document.querySelectorAll("main > section")) section.hidden = (section.id === "alone") !== Boolean(name);
  if (name) {
    drawAlone(last, name);
  } else {
    const found = attention(last.status, last.pools, last.stories, last.fallbacks);
    drawAttention(found);
    drawFlow(last, found);
    drawPools(last);
    replace("fallbacks", last.fallbacks.map((held) => drawFallback(held, last.status.now)), "None: everything runs on Spot.");
    drawDay(last);
    drawStories(last);
    drawSteps(last);
  }
  // Who is at a button stays there.
  if (key && document.activeElement?.dataset?.key !== key) document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

// What a request answers with; an unknown caller needs a token.
async function ask(path, options = {}) {
  const headers = { accept: "application/json", ...options.headers };
  if (token) headers.authorization = `Bearer ${token}`;
  const answer = await fetch(`/api/v1/${path}`, { ...options, headers });
  if (!answer.ok) {
    const problem = await answer.json().catch(() => ({}));
    const { status } = answer;
    throw Object.assign(new Error(problem.detail || `/api/v1/${path}: ${status}`), { status, reason: problem.reason });
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
  await Promise.all(pools.filter((pool) => !samples.has(pool.name)).map(async (pool) => {
    // Who may list the pools need not be allowed to get one: their chart begins now.
    const history = await get(`pools/${encodeURIComponent(pool.name)}/history`).catch(() => ({ items: [] }));
    samples.set(pool.name, history.items.filter((held) => held.spot || held.onDemand).map(sample));
  }));
}

// Why nothing can be shown: who answers with a status answers.
function whyNot({ status, message }) {
  if (status === 401) return token ? `The token is refused: ${message}` : "Who reads shows a token of the cluster.";
  if (status === 403) return `This is not allowed: ${message}`;
  if (status) return `Spot Guard cannot say it now (${status}): ${message}`;
  return `Spot Guard does not answer: ${message}`;
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
    byId("summary").textContent = whyNot(error);
    if (error.status === 401 || error.reason === "Forbidden") byId("login").hidden = false;
  }
  asked = null;
  if (again) { again = false; setTimeout(look, 200); }
}

// A message of the stream, as the HTML standard has it: lines "event: ...", "id: ..." and "data: ...". The page
// is drawn from what is stored; the id asks for what came while there was no stream.
function take(message) {
  const lines = message.split("\n");
  lastId = lines.find((line) => line.startsWith("id: "))?.slice(4) ?? lastId;
  if (lines.some((line) => line === "event: changed" || line === "event: step")) look();
}

// Follows what happens. Not by EventSource: that sends no token.
async function follow() {
  let pause = FIRST_PAUSE;
  for (;;) {
    try {
      const headers = { accept: "text/event-stream", ...(lastId ? { "last-event-id": lastId } : {}) };
      const stream = await ask("events", { stream: true, headers });
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
if (view.get("replacement")) fill(document.querySelector(".skip"), { href: "#alone-title" }, []).textContent = "To the replacement";
follow();
look();
// Durations grow also when nothing happens.
setInterval(look, 5000);
