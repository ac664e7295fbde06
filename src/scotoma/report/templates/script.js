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
})();
