// Each function writes a text as a literal of its language, so that any id or address can be pasted.

export const quote = {
  // No "<", because an id may contain "</script>". Only ASCII, because the reader's page may not be UTF-8.
  js: (text) => JSON.stringify(text).replace(/[<\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0")),
  html: (text) => '"' + text.replace(/&/g, "&amp;").replace(/"/g, "&quot;").replace(/</g, "&lt;") + '"',
  php: (text) => "'" + text.replace(/[\\']/g, "\\$&") + "'",
  shell: (text) => "'" + text.replace(/'/g, "'\\''") + "'",
};
