/** `$NAME`, `${NAME:-default}` and their kin, as the Compose Specification has them, on one scalar's text. */

/** A piece of a template: literal text, or a variable with what to do about its absence. */
export type Piece =
  | string
  | { readonly name: string; readonly operator: '' | Operator; readonly argument: readonly Piece[] };
type Operator = ':-' | '-' | ':?' | '?' | ':+' | '+';

/** A template that cannot be read; `offset` counts characters of the text. */
export interface TemplateError {
  readonly offset: number;
  readonly message: string;
}

const nameAt = /[A-Za-z_][A-Za-z0-9_]*/y;
const operatorAt = /:?[-?+]/y;

/** The pieces of a text, or where it is not well formed. `$$` is a literal dollar, and so is one that nothing to look up follows. */
export function parseTemplate(text: string): readonly Piece[] | TemplateError {
  const cursor = { text, offset: 0 };
  const pieces = piecesUntil(cursor, false);
  return pieces;
}

interface Cursor {
  readonly text: string;
  offset: number;
}

function piecesUntil(cursor: Cursor, nested: boolean): readonly Piece[] | TemplateError {
  const { text } = cursor;
  const pieces: Piece[] = [];
  let literal = '';
  /** Braces that are no variable's: within an argument they come in pairs. */
  let open = 0;
  while (cursor.offset < text.length) {
    const character = text[cursor.offset]!;
    if (nested && character === '}' && open === 0) break;
    if (character !== '$') {
      if (character === '{') open++;
      if (character === '}' && open > 0) open--;
      literal += character;
      cursor.offset++;
      continue;
    }
    if (text[cursor.offset + 1] === '$') {
      literal += '$';
      cursor.offset += 2;
      continue;
    }
    const variable = variableAt(cursor);
    if (variable === undefined) {
      literal += '$';
      cursor.offset++;
      continue;
    }
    if ('message' in variable) return variable;
    if (literal) pieces.push(literal);
    literal = '';
    pieces.push(variable);
  }
  if (literal) pieces.push(literal);
  return pieces;
}

/** Undefined where the dollar is only a dollar: neither a name follows it nor a brace. */
function variableAt(cursor: Cursor): Exclude<Piece, string> | TemplateError | undefined {
  const start = cursor.offset;
  const { text } = cursor;
  cursor.offset++;
  const braced = text[cursor.offset] === '{';
  if (braced) cursor.offset++;
  const name = match(nameAt, cursor);
  if (name === undefined && braced) return { offset: start, message: '"${" must be followed by a variable name' };
  if (name === undefined) {
    cursor.offset = start;
    return undefined;
  }
  if (!braced) return { name, operator: '', argument: [] };
  if (text[cursor.offset] === '}') {
    cursor.offset++;
    return { name, operator: '', argument: [] };
  }
  const operator = match(operatorAt, cursor);
  if (operator === undefined)
    return cursor.offset >= text.length
      ? { offset: start, message: '"${" is not closed by "}"' }
      : { offset: start, message: `"${text[cursor.offset]}" cannot follow the variable name ${name}` };
  const argument = piecesUntil(cursor, true);
  if ('message' in argument) return argument;
  if (text[cursor.offset] !== '}') return { offset: start, message: '"${" is not closed by "}"' };
  cursor.offset++;
  return { name, operator: operator as Operator, argument };
}

function match(pattern: RegExp, cursor: Cursor): string | undefined {
  pattern.lastIndex = cursor.offset;
  const found = pattern.exec(cursor.text)?.[0];
  if (found !== undefined) cursor.offset += found.length;
  return found;
}

/** Every variable a template may ask for. */
export function variablesOf(pieces: readonly Piece[]): string[] {
  return pieces.flatMap((piece) => (typeof piece === 'string' ? [] : [piece.name, ...variablesOf(piece.argument)]));
}

export interface Expansion {
  readonly text: string;
  /** Variables that had neither a value nor a default: they became nothing. */
  readonly unset: readonly string[];
  /** The message of a `?` whose variable is missing. */
  readonly failure: string | undefined;
}

/** The template with its variables looked up. */
export function expand(pieces: readonly Piece[], lookup: (name: string) => string | undefined): Expansion {
  let text = '';
  const unset: string[] = [];
  const append = (expansion: Expansion) => {
    text += expansion.text;
    unset.push(...expansion.unset);
    return expansion.failure;
  };
  for (const piece of pieces) {
    if (typeof piece === 'string') {
      text += piece;
      continue;
    }
    const { name, operator, argument } = piece;
    const value = lookup(name);
    const present = value !== undefined && !(operator.startsWith(':') && value === '');
    switch (operator.at(-1)) {
      case '-': {
        if (present) text += value;
        else {
          const failure = append(expand(argument, lookup));
          if (failure !== undefined) return { text, unset, failure };
        }
        break;
      }
      case '+': {
        const failure = present ? append(expand(argument, lookup)) : undefined;
        if (failure !== undefined) return { text, unset, failure };
        break;
      }
      case '?':
        if (present) text += value;
        else {
          const reason = expand(argument, lookup).text;
          const state = value === undefined ? 'not set' : 'empty';
          return { text, unset, failure: `required variable ${name} is ${state}${reason ? `: ${reason}` : ''}` };
        }
        break;
      default:
        if (value === undefined) unset.push(name);
        text += value ?? '';
    }
  }
  return { text, unset, failure: undefined };
}
