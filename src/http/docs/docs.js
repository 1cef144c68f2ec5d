"use strict";

// Shows the description that the API gives of itself: what can be asked, with what, and what comes back.

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

let description = {};

function resolved(thing) {
  if (!thing.$ref) return thing;
  return thing.$ref.slice(2).split("/").reduce((held, key) => held[key], description);
}

const nameOf = (reference) => reference.split("/").pop();

// A type in a few words, linked to where it is described.
function typed(schema) {
  if (schema === true || !schema) return "anything";
  if (schema.$ref) return element("a", { href: `#type-${nameOf(schema.$ref)}` }, nameOf(schema.$ref));
  const many = schema.oneOf || schema.anyOf || schema.allOf;
  if (many) return element("span", {}, ...many.flatMap((one, index) => (index ? [" or ", typed(one)] : [typed(one)])));
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.type === "array") return element("span", {}, "list of ", typed(schema.items));
  const type = [].concat(schema.type || "anything").filter((one) => one !== "null").join(" or ");
  return schema.format ? `${type} (${schema.format})` : type;
}

function table(heads, rows) {
  if (!rows.length) return null;
  return element("table", {},
    element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell || ""))))));
}

function drawRequest(path, method, operation) {
  const parameters = (operation.parameters || []).map(resolved);
  const body = operation.requestBody && resolved(operation.requestBody);
  const answers = Object.entries(operation.responses).map(([code, answer]) => {
    const told = resolved(answer);
    const [media, content] = Object.entries(told.content || {})[0] || ["", {}];
    return [code, told.description, media, content.schema ? typed(content.schema) : ""];
  });
  return element("details", { id: operation.operationId },
    element("summary", {}, element("strong", {}, `${method.toUpperCase()} ${path}`), ` ${operation.summary}`),
    operation.description ? element("p", {}, operation.description) : null,
    table(["parameter", "in", "type", "meaning"],
      parameters.map((held) => [held.name, held.in, typed(held.schema), held.description])),
    body ? element("p", {}, "Body: ", typed(body.content["application/json"].schema), `. ${body.description}`) : null,
    table(["answer", "meaning", "media type", "content"], answers));
}

function drawType(name, schema) {
  const required = new Set(schema.required || []);
  const fields = Object.entries(schema.properties || {}).map(([field, held]) =>
    [field, typed(held), required.has(field) ? "always" : "may be absent", held.description]);
  const values = (schema.oneOf || []).filter((one) => one.const !== undefined).map((one) => [one.const, one.description]);
  const shown = fields.length ? table(["field", "type", "there", "meaning"], fields)
    : values.length ? table(["value", "meaning"], values) : element("p", {}, typed({ ...schema, description: undefined }));
  return element("details", { id: `type-${name}` },
    element("summary", {}, element("strong", {}, name)),
    schema.description ? element("p", {}, schema.description) : null, shown);
}

// A link to what is folded unfolds it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target) { target.open = true; target.scrollIntoView(); }
}

async function show() {
  const about = document.getElementById("about");
  try {
    const answer = await fetch("/api/v1/openapi.json");
    if (!answer.ok) throw new Error(String(answer.status));
    description = await answer.json();
  } catch (error) {
    about.textContent = `The description cannot be read: ${error.message}`;
    return;
  }
  about.textContent = `${description.info.description} Version ${description.info.version}.`;
  const requests = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => drawRequest(path, method, operation)));
  document.getElementById("requests").replaceChildren(...requests);
  const types = Object.entries(description.components.schemas).map(([name, schema]) => drawType(name, schema));
  document.getElementById("types").replaceChildren(...types);
  unfold();
}

addEventListener("hashchange", unfold);
show();
