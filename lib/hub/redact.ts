// What must not be shown: tokens, what addresses carry along, what steers a terminal.

/** Tokens that were used in this process: a server may repeat one in whatever it says. */
const used = new Set<string>();

/** From now on, this is never shown. */
export function hide(token: string): string {
  // Shorter ones are no secrets, and words would be taken for them.
  if (token.length >= 6) used.add(token).add(encodeURIComponent(token));
  return token;
}

/** Takes tokens, and what addresses hide, out of a text that is shown or thrown. */
export function redact(text: string): string {
  let shown = text;
  for (const token of used) shown = shown.replaceAll(token, "[token]");
  shown = shown
    .replaceAll(/\bhf_[A-Za-z0-9_]{8,}/g, "[token]")
    .replaceAll(/\bBearer\s+\S+/gi, "Bearer [token]");
  // Signed addresses carry their right of access in the query, others a password before the host.
  return shown
    .replaceAll(/(https?:\/\/[^\s?#"']+)\?[^\s"']*/g, "$1")
    .replaceAll(/(https?:\/\/)[^\s/@"']+@/g, "$1");
}

/** A text from elsewhere in one line, without what would steer a terminal. */
export const printable = (text: string): string => text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, " ");

/** Another's words as part of a message: short, in one line, and without what they must not tell. */
export const quoted = (text: string, length = 200): string => printable(redact(text)).slice(0, length);
