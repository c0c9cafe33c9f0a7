// What classes say in statics and prototypes: inherited tables, aliases of fields, members.

import type { PretrainedConfig } from "./configuration_utils.ts";

/** The values of an object property along the prototype chain of a class, those of the class itself last. */
export function inheritedTable<T extends object>(cls: object, name: string): T {
  const tables: object[] = [];
  for (let c: object | null = cls; c !== null && c !== Function.prototype; c = Object.getPrototypeOf(c)) {
    if (Object.hasOwn(c, name)) tables.unshift((c as Record<string, object>)[name] as object);
  }
  return Object.assign({}, ...tables) as T;
}

/** Makes every alias of an `attribute_map` read and write the field it stands for. */
export function defineAliases(
  cls: { readonly prototype: object },
  aliases: Readonly<Record<string, string>>,
): void {
  for (const [alias, field] of Object.entries(aliases)) {
    if (Object.hasOwn(cls.prototype, alias)) continue;
    Object.defineProperty(cls.prototype, alias, {
      configurable: true,
      get(this: Record<string, unknown>) {
        return this[field];
      },
      set(this: Record<string, unknown>, value: unknown) {
        this[field] = value;
      },
    });
  }
}

/** The method or accessor that a name means along a prototype chain. */
export function memberOf(prototype: object | null, name: string): PropertyDescriptor | undefined {
  for (let p = prototype; p !== null; p = Object.getPrototypeOf(p)) {
    const member = Object.getOwnPropertyDescriptor(p, name);
    if (member !== undefined) return member;
  }
  return undefined;
}

/** Whether a value is a configuration, for files that the class itself imports. */
export const isConfig = (value: unknown): value is PretrainedConfig =>
  typeof (value as { readonly _adopt?: unknown } | null | undefined)?._adopt === "function";
