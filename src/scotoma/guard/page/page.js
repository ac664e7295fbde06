"use strict";
const at = (id) => document.getElementById(id);
let under_way = false;

function headers() {
  const key = at("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

/* Texts go in as text, never as markup. */
function tell(kind, title, text) {
  const box = document.createElement("p");
  const strong = document.createElement("strong");
  box.className = `notice ${kind}`;
  strong.textContent = title;
  box.append(strong, text);
  at("status").replaceChildren(box);
}

function list(id, rows) {
  at(id).replaceChildren(...rows.map((row) => {
    const li = document.createElement("li");
    li.textContent = row;
    return li;
  }));
}

async function readPolicy() {
  try {
    const answer = await fetch("/v1/policy", { headers: headers() });
    if (answer.status === 401) {
      at("key-row").hidden = false;
      at("which").textContent = "This server asks for a key before it says what it serves.";
      return;
    }
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.error.message);
    at("which").textContent = told.model
      ? `Model ${told.model}, ${told.size}, behind the policy ${told.name}`
      : `No model is served; the policy is ${told.name}`;
    at("identity").textContent = told.identity;
    list("says", told.says);
    list("credits", told.credits);
    at("go").setAttribute("aria-disabled", String(!told.model));
  } catch (error) {
    at("which").textContent = `The policy could not be read: ${error.message}`;
  }
}

function wait(on) {
  under_way = on;
  at("go").setAttribute("aria-disabled", String(on));
  at("go").textContent = on ? "Drawing" : "Draw";
}

async function draw(event) {
  event.preventDefault();
  if (under_way || at("go").getAttribute("aria-disabled") === "true") return;
  const prompt = at("prompt").value;
  const seed = at("seed").value.trim();
  wait(true);
  at("shown").hidden = true;
  tell("", "Drawing", "A picture is shown when every check has looked at it.");
  try {
    const answer = await fetch("/v1/images/generations", {
      method: "POST",
      headers: headers(),
      /* Written by hand: a seed may be larger than a number of JavaScript. */
      body: `{"prompt": ${JSON.stringify(prompt)}${seed ? `, "seed": ${seed.replace(/^0+(?=\d)/, "")}` : ""}}`,
    });
    const told = await answer.json();
    if (answer.ok) show(prompt, told.data[0]);
    else refused(answer, told.error);
  } catch (error) {
    tell("refused", "No answer", `The server could not be reached: ${error.message}`);
  } finally {
    wait(false);
  }
}

function show(prompt, one) {
  const image = at("picture");
  const what = one.revised_prompt ?? prompt;
  image.onload = () => image.classList.toggle("pixelated", image.naturalWidth <= 128);
  image.src = `data:image/png;base64,${one.b64_json}`;
  image.alt = one.action === "blurred" ? "A blurred picture" : `What the model drew of: ${what}`;
  at("caption").textContent = `${what} · seed ${one.seed}`;
  at("shown").hidden = false;
  tell("drawn", one.action === "blurred" ? "Shown blurred" : "Drawn", one.sentence || "Every check passed.");
}

function refused(answer, error) {
  const again = answer.headers.get("Retry-After");
  const title = { 401: "A key is needed", 429: "Too busy", 503: "Not available" }[answer.status]
    ?? (error.code === "content_policy_violation" ? "Refused" : "This does not fit");
  const where = error.stage ? ` Check: ${error.stage}${error.category ? `, category: ${error.category}` : ""}.` : "";
  if (answer.status === 401) {
    at("key-row").hidden = false;
    at("key").focus();
  }
  tell("refused", title, `${error.message}${where}${again ? ` Ask again in ${again} s.` : ""}`);
}

at("form").addEventListener("submit", draw);
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("form").requestSubmit();
});
at("key").addEventListener("change", readPolicy);
readPolicy();
