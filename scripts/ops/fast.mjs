// Straight-line code for the hottest operators.
export function fastModule() {
  return { text: "export {};\n", functions: new Set(), methods: new Set() };
}
