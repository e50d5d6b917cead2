// The page of a job that still runs is made anew every five seconds, unless somebody marks text in it or looks elsewhere.
"use strict";
(function () {
  if (document.getElementById("job").dataset.ended === "true") {
    return;
  }
  setInterval(function () {
    if (!document.hidden && !String(getSelection())) {
      location.reload();
    }
  }, 5000);
})();
