// One formatter for each kind of number; unknown is "-", never 0. The same rules as the
// CLI's texts: binary units spelled out, three digits, durations as people say them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

export const known = (value) => value !== null && value !== undefined;

export function bytes(value) {
  if (!known(value)) return "-";
  let unit = 0;
  while (value >= 999.5 && unit + 1 < UNITS.length) { value /= 1024; unit += 1; }
  const digits = unit === 0 || value >= 99.95 ? 0 : value < 9.995 ? 2 : 1;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

export const count = (value) => (known(value) ? Math.round(value).toLocaleString("en-US") : "-");

export function duration(seconds) {
  if (!known(seconds)) return "-";
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${seconds.toFixed(0)} s`;
  if (seconds < 6000) return `${(seconds / 60).toFixed(0)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(0)} h`;
  return `${(seconds / 86400).toFixed(0)} d`;
}

export const ms = (value) => (known(value) ? value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0) : "-");

export const percent = (share) => (known(share) ? `${Math.floor(share * 100)} %` : "-");

export const share = (part, whole) => (known(part) && whole > 0 ? part / whole : null);

const two = (number) => String(number).padStart(2, "0");

// Local time with its zone on hover (UTC, exact): people compare it with their watch.
export function time(iso) {
  const at = new Date(iso);
  const day = new Date().toDateString() === at.toDateString() ? "" : `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} `;
  return `${day}${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

export const ago = (iso) => `${duration(Math.max(0, (Date.now() - new Date(iso)) / 1000))} ago`;

// Where the CLI is called from; the folder of a demo is not known to a browser.
export const cli = (words) => `vmhold ${words}`;

// A name as a shell reads it.
export const word = (name) => (/^[\w@%+=:,./-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`);
