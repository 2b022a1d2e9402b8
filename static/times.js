//  times.js - times as people say them, from the datetime attribute

const LOCALE = "en-GB"; // The page's language, in the server's way to write dates
const relative = new Intl.RelativeTimeFormat(LOCALE);
const short = new Intl.DateTimeFormat(LOCALE, { dateStyle: "medium", timeStyle: "short" });
const full = new Intl.DateTimeFormat(LOCALE, { dateStyle: "full", timeStyle: "long" });
const UNITS = Object.entries({ year: 31557600, month: 2629800, day: 86400, hour: 3600, minute: 60 });

//  A clock that lags behind the server's must not make a message come from the future.
function ago(then) {
  const seconds = (Date.now() - then) / 1000;
  const [unit, size] = UNITS.find(([, length]) => seconds >= length) ?? [];
  return unit ? relative.format(-Math.floor(seconds / size), unit) : "just now";
}

export function showTimes(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const then = new Date(time.dateTime);
    (time.firstElementChild ?? time).textContent = ago(then);
    time.title = full.format(then);
    time.dataset.absolute = short.format(then);
  }
}
