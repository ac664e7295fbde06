(function () {
  "use strict";
  // Without this script the pairs stay side by side and no slider is shown.
  document.documentElement.classList.add("scripted");
  document.querySelectorAll(".group").forEach(function (group) {
    var range = group.querySelector("input[type=range]");
    if (!range) return;
    function show() {
      group.style.setProperty("--cut", range.value + "%");
      range.setAttribute("aria-valuetext", range.value + " percent before, " + (100 - range.value) + " percent after");
    }
    range.addEventListener("input", show);
    show();
  });
  // Pictures behind a veil: a button each, two for all of them, Escape in a hurry. Without this script they stay blurred.
  var veils = Array.from(document.querySelectorAll(".veil"));
  var told = document.getElementById("veiled");
  function veil(some, shown) {
    some.forEach(function (v) { v.setAttribute("aria-pressed", String(shown)); });
  }
  function all(shown) {
    veil(veils, shown);
    if (told) told.textContent = shown ? "All pictures are shown" : "All pictures are blurred";
  }
  veils.forEach(function (v) {
    v.addEventListener("click", function () { veil([v], v.getAttribute("aria-pressed") !== "true"); });
  });
  document.querySelectorAll("button.every").forEach(function (b) {
    b.addEventListener("click", function () { all(b.dataset.shown === "true"); });
  });
  if (veils.length) {
    document.addEventListener("keydown", function (e) { if (e.key === "Escape") all(false); });
  }
})();
