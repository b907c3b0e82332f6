/** A command line split into words as Compose splits `command:` strings: quotes and backslashes, no expansion. */

/** The words, or undefined where a quote or backslash is left open. */
export function shellWords(line: string): string[] | undefined {
  const words: string[] = [];
  let word: string | undefined;
  let quote = '';
  for (let index = 0; index < line.length; index++) {
    const character = line[index]!;
    if (quote === "'") {
      if (character === "'") quote = '';
      else word += character;
    } else if (character === '\\') {
      const next = line[++index];
      if (next === undefined) return undefined;
      if (quote === '"' && !'"\\$`\n'.includes(next)) word = `${word ?? ''}\\${next}`;
      else word = (word ?? '') + next;
    } else if (quote === '"') {
      if (character === '"') quote = '';
      else word += character;
    } else if (character === '"' || character === "'") {
      quote = character;
      word ??= '';
    } else if (/\s/.test(character)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else word = (word ?? '') + character;
  }
  if (quote) return undefined;
  if (word !== undefined) words.push(word);
  return words;
}
