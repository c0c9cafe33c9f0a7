// Looking into values: `object.name` and `object[key]`. Nothing here reaches a JavaScript property by a template's name for it.

import { method } from "./methods.ts";
import { items, JinjaError, Loop, Namespace, text, typeName, Undefined, type Value } from "./values.ts";

/** `object.name`: a method or attribute first, then an item. */
export function attributeOf(object: Value, name: Value): Value {
  if (typeof name !== "string") return itemOf(object, name);
  if (object instanceof Undefined) throw new JinjaError(object.reason);
  if (object instanceof Namespace || object instanceof Loop)
    return object.attributes.get(name) ?? missing(object, name);
  const found = method(object, name);
  if (found !== undefined) return found;
  if (object instanceof Map && object.has(name)) return object.get(name) as Value;
  if (name.startsWith("__"))
    throw new JinjaError(`access to attribute '${name}' of '${typeName(object)}' object is unsafe.`);
  return missing(object, name);
}

/** `object[key]`: an item first, then an attribute. */
export function itemOf(object: Value, key: Value): Value {
  if (object instanceof Map && object.has(key)) return object.get(key) as Value;
  if (
    (Array.isArray(object) || typeof object === "string") &&
    (typeof key === "number" || typeof key === "boolean")
  ) {
    const list = items(object);
    return list.at(Number(key)) ?? missing(object, key);
  }
  return typeof key === "string" ? attributeOf(object, key) : missing(object, key);
}

const missing = (object: Value, name: Value): Undefined =>
  new Undefined(
    object instanceof Map || Array.isArray(object)
      ? `'${typeName(object)} object' has no ${typeof name === "string" ? "attribute" : "element"} ${typeof name === "string" ? `'${name}'` : text(name)}`
      : `'${typeName(object)} object' has no attribute '${text(name)}'`,
  );
