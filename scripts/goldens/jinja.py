"""Goldens of chat templates: what transformers' environment of jinja2 makes of many small templates.

    python scripts/goldens/jinja.py test/fixtures/jinja.json

Each case is [template, rendered text], [template, null] when it does not parse, or [template, false] when it
parses and fails. The first list is written by hand, the second drawn at random with a fixed seed.
"""

import json
import random
import sys

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template

CONTEXT = {
    "n": 3, "f": 2.5, "s": "Ab cd", "t": True, "none_": None, "l": [3, 1, 2], "e": [],
    "d": {"b": 1, "a": [1, {"c": "x"}]},
    "tree": [{"name": "a", "kids": [{"name": "b", "kids": []}, {"name": "c", "kids": [{"name": "d", "kids": []}]}]},
             {"name": "e", "kids": []}],
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": " Yo "}],
}

BY_HAND = [
    # raw
    "{% raw %}{{ x }} {% if %}{% endraw %}!",
    "a\n  {% raw %}\n {{ x }}\n  {% endraw %}\nb",
    "a {%- raw -%} {{ x }} {%- endraw -%} b",
    "a {%+ raw %} {{ x }} {%+ endraw +%}\n b",
    "{% raw %}open",
    # tests with arguments
    "{{ n is divisibleby 3 }} {{ n is divisibleby(2) }} {{ n is not divisibleby 2 }}",
    "{{ n is divisibleby num=3 }}",
    "{{ n is divisibleby(num=3) }}{{ n is sameas n }}{{ none_ is sameas none }}",
    "{{ 1 is in l }} {{ 9 is in(l) }} {{ 'a' is in d }} {{ n is eq 3 }} {{ n is gt 2 }} {{ n is lessthan(2) }}",
    "{{ n is in [1, 2, 3] }} {{ n is in (1, 2) }} {{ 'b' is in {'b': 1} }}",
    "{{ n is odd and n is not even or false }} {{ 'x' if n is odd else 'y' }}",
    "{{ n is defined }} {{ m is defined }} {{ m is undefined is true }}",
    "{{ n is divisibleby l[0] }} {{ n is divisibleby d.b }}",
    "{{ s is string }} {{ f is float }} {{ n is integer }} {{ n is number }} {{ d is mapping }} {{ l is sequence }}",
    "{{ s is lower }} {{ 'AB' is upper }} {{ none_ is none }}",
    "{{ n is divisibleby }}", "{{ n is odd 3 }}", "{{ n is == 3 }}", "{{ -n is odd }} {{ not n is odd }}",
    "{{ l | select('divisibleby', 3) | list }} {{ l | reject('odd') | list }} {{ l | select('gt', 1) | list }}",
    # recursive loops
    "{% for i in tree recursive %}{{ loop.depth }}{{ i.name }}({{ loop(i.kids) }}){% endfor %}",
    "{% for i in tree recursive %}[{{ i.name }}{% if i.kids %}{{ loop(i.kids) }}{% endif %}]{% else %}none{% endfor %}",
    "{% for i in tree recursive %}{{ i.name }}{{ loop(i.kids) }}{% else %}.{% endfor %}",
    "{% for i in tree if i.name != 'c' recursive %}{{ i.name }}{{ loop.index }}{{ loop(i.kids) }}{% endfor %}",
    "{% for i in tree %}{{ loop(i.kids) }}{% endfor %}", "{{ loop }}",
    "{% for i in l %}{{ loop.index }}/{{ loop.length }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.cycle('a', 'b') }}{{ loop.changed(i > 1) }} {% endfor %}",
    "{% for i in l %}{{ loop }} {{ loop.previtem }} {{ loop.nextitem is defined }} {{ loop['index'] }};{% endfor %}",
    "{% for i in l %}{{ loop.cycle() }}{% endfor %}",
    "{% for i in l %}{% for j in l %}{{ loop.depth0 }}{{ j }}{% endfor %}{{ loop.last }}{% endfor %}",
    "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for (k, v) in d.items() %}{{ k }}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for a, b in l %}{% endfor %}",
    "{% for i in l if i > 1 %}{{ i }}{% if i == 3 %}{% continue %}{% endif %},{% else %}no{% endfor %}",
    "{% for i in l %}{{ i }}{% break %}{% endfor %}", "{% break %}", "{% for i in 1, 2 %}{{ i }}{% endfor %}",
    "{% for i in e %}x{% else %}{{ i is defined }}{% endfor %}", "{% for i in l: %}{{ i }}{% endfor %}",
    # expressions: what binds how
    "{{ 1 < n < 5 }} {{ 1 < n > 5 }} {{ 1 == 1 in [1] }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 2 * 3 ~ 4 + 1 }}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % -3 }} {{ 7 / 2 }} {{ 1.5e3 }} {{ 1_000 }} {{ 0x1F }} {{ 0b11 }} {{ 0o17 }} {{ 1e2 }}",
    "{{ 'a' 'b' \"c\" }} {{ 'a\\tb\\x41\\u00e9\\'\\d' }} {{ 'multi\nline' }} {{ '\\101' }} {{ '\\x4' }}",
    "{{ (1, 2) }} {{ (1,) }} {{ () }} {{ 1, 2 }} {{ [1, 2,] }} {{ {'a': 1,} }} {{ {} }} {{ [] }}",
    "{{ l[1:] }} {{ l[::-1] }} {{ l[-1] }} {{ s[:2] }} {{ s[::2] }} {{ l.0 }} {{ d['a'][1].c }} {{ l[9] is defined }} {{ d.zz }}",
    "{{ n if t }} {{ n if not t }} {{ 'a' if false else 'b' if false else 'c' }} {{ not t and f }} {{ not (t and f) }}",
    "{{ s | upper | length }} {{ (s | upper).lower() }} {{ s.upper() | lower }} {{ 'a' ~ s | upper }} {{ -n | abs }}",
    "{{ l | join(', ') }} {{ l | sort | first }} {{ l | sum + 1 }} {{ l|length > 2 }} {{ 3 in l and 4 not in l }} {{ not 3 in l }}",
    "{{ 'a'.join(['x', 'y']) }} {{ '%s-%d' % ('a', 3) }} {{ '%05.2f' % f }} {{ 'a' * 3 }} {{ [0] * 2 }}",
    "{{ dict(a=1, **{'b': 2}) }} {{ range(*[1, 4]) | list }} {{ dict(**d) }} {{ s.replace('b', count=1) }}",
    "{{ True }}{{ true }}{{ None }}{{ none }}{{ False }}", "{{ 1 if }}", "{{ }}", "{{ 1 2 }}", "{{ (1 }}", "{{ 'a }}", "{{ a.b.c }}",
    "{% set true = 1 %}", "{{ loop is defined }} {{ caller is defined }}", "{{ \"it's\" }}", "{{ s|trim|default('x')|replace('A', 'b') }}",
    "{{ '%s|%5s|%-5s|%.1s|%r' % ('ab', 'c', 'd', 'efg', 'h') }} {{ '%d|%5d|%-5d|%05d|%+d|% d|%i' % (1, -2, 3, -4, 5, 6, 7.9) }}",
    "{{ '%x|%X|%#x|%o|%c|%%' % (255, 255, 255, 8, 65) }} {{ '%e|%.2e|%g|%g|%g|%G|%.3g' % (1234.5, 0.00012, 1e10, 0.0001, 1.5, 1e-9, 2) }}",
    "{{ '%(a)s-%(b)05.1f' % {'a': 1, 'b': 2} }} {{ '%*d' % (5, 3) }} {{ '%s' % l }} {{ '%s' % none }}", "{{ '%s %s' % 1 }}", "{{ '%s' % (1, 2) }}", "{{ '%d' % 'x' }}",
    "{{ '%s and %s' | format('a', 2) }} {{ missing | default(2) | int }} {{ 'x' | int(5) }} {{ ' 12 ' | int }} {{ 'ff' | int(0, 16) }} {{ '1.5' | float }}", "{{ missing | int }}",
    # statements
    "{% set a, b = 1, 2 %}{{ a }}{{ b }}", "{% set a = 1, 2 %}{{ a }}", "{% set a %}x{{ n }}{% endset %}[{{ a }}]",
    "{% set a | upper | trim %} x{{ n }} {% endset %}[{{ a }}]", "{% set a.b = 1 %}", "{% set 1 = 2 %}",
    "{% set ns = namespace(x=0) %}{% for i in l %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}",
    "{% set x = 0 %}{% for i in l %}{% set x = x + i %}{% endfor %}{{ x }}", "{% if n %}{% set y = 1 %}{% endif %}{{ y }}",
    "{% with a = 1, b = n %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set q = 1 %}{{ q }}{% endwith %}{{ q }}",
    "{% with n = 1, m = n %}{{ n }}{{ m }}{% endwith %}", "{% print n, s %}", "{% if n > 1: %}y{% endif %}", "{% if n, 0 %}y{% endif %}",
    "{% if n == 1 %}a{% elif n == 2 %}b{% elif n == 3 %}c{% else %}d{% endif %}", "{% if n %}", "{% endif %}", "{% nope %}", "{% if n %}{% endfor %}",
    "{% macro m(a, b=2, c=a) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=5) }} {{ m() }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, z=2) }}",
    "{% macro m(a) %}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, z=3) }}", "{% macro m(a=1, b) %}{% endmacro %}",
    "{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(v) m(3) %}v={{ v }}{% endcall %}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}a{% endcall %}", "{% call n %}{% endcall %}", "{% macro m() %}{% endmacro %}{% call m() %}a{% endcall %}",
    "{% filter upper %}a{{ s }}{% endfilter %}", "{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% generation %}a{% set zz = 1 %}{% endgeneration %}{{ zz is defined }}", "{% for m in messages %}{%- generation -%} {{ m.content }} {%- endgeneration -%}\n{% endfor %}",
    # white space
    "a\n  {% if t %}\n  b\n  {% endif %}\nc\n", "a\n  {%+ if t %}\n  b\n  {%+ endif %}\nc\n\n", "  {%- if t -%}  b  {%- endif -%}  c",
    "a  {# c #}\n  b {#- c -#}  d\n   {# x #} e", "{{ n -}}   x   {{- n }}", "x\n  {{ n }}\n  y", "\n\n{% if t %}\n\nx{% endif %}\n\n", "a\r\n  {% if t %}\r\nb{% endif %}\r\n",
    "  {% if t %}x{% endif %}  {# c #}  y", "{% if t +%}\nx{% endif %}", "{# a {{ b }} {% c %} #}d", "{#- #}", "{# open", "a {{ '}}' }} {{ '%}' }} {{ {'a': {'b': 1}}.a }} {{ {'a': {'b': 1}} }}",
    "\u00a0{%- if t %}x{% endif %}", "{{ 'é' ~ '😀'[0] }}", "{{ ünïcode }}|{{ _x }}", "{{ 1a }}", "{{ $ }}", "{% set é = 1 %}{{ é }}",
]


FILTERS = ["length", "upper", "string", "list", "first", "last", "default(1)", "int", "float", "tojson", "join(',')", "abs", "trim",
           "sort", "unique | list", "reverse | list", "sum", "max", "min"]
TESTS = ["defined", "odd", "string", "none", "number", "mapping", "divisibleby 2", "eq 1", "in l", "sameas none", "true", "iterable"]


def random_expression(rng, depth=0):
    leaves = ["n", "f", "s", "t", "none_", "l", "d", "missing", "1", "2.5", "'x'", "-1", "[1, n]", "(1, 's')", "{'k': n}", "true", "none", "d.a", "l[0]", "s[1:]"]
    if depth > 3 or rng.random() < 0.25:
        return rng.choice(leaves)
    def sub():
        return random_expression(rng, depth + 1)
    kind = rng.randrange(9)
    if kind == 0:
        return f"{sub()} {rng.choice(['+', '-', '*', '/', '//', '%', '~', '**'])} {sub()}" if rng.random() < 0.5 else f"{sub()} ~ {sub()}"
    if kind == 1:
        return f"{sub()} {rng.choice(['<', '<=', '>', '>=', '==', '!=', 'in', 'not in'])} {sub()}"
    if kind == 2:
        return f"{sub()} {rng.choice(['and', 'or'])} {sub()}"
    if kind == 3:
        return f"{rng.choice(['not', '-', '+'])} {sub()}"
    if kind == 4:
        return f"({sub()})"
    if kind == 5:
        return f"{sub()} if {sub()} else {sub()}"
    if kind == 6:
        return f"{sub()} is {rng.choice(['', 'not '])}{rng.choice(TESTS)}"
    if kind == 7:
        return f"{sub()} | {rng.choice(FILTERS)}"
    return f"[{sub()}, {sub()}]"


def random_template(rng, depth=0):
    parts = []
    for _ in range(rng.randrange(1, 4)):
        space = rng.choice(["", " ", "\n", "\n  ", "  ", "\n\n"])
        a, b = rng.choice(["", "-", "+", ""]), rng.choice(["", "-", ""])
        kind = rng.randrange(6) if depth < 3 else 0
        if kind <= 1:
            parts.append(f"{space}{{{{{rng.choice(['', '-'])} {random_expression(rng, 2)} {b}}}}}")
        elif kind == 2:
            parts.append(f"{space}{{%{a} if {random_expression(rng, 2)} {b}%}}{random_template(rng, depth + 1)}{{%{a} else {b}%}}{space}{{%{b} endif %}}")
        elif kind == 3:
            parts.append(f"{space}{{%{a} for i in {rng.choice(['l', 'range(2)', 'd', 's', 'e'])} {b}%}}{{{{ i }}}}{random_template(rng, depth + 1)}{space}{{%{a} endfor {b}%}}")
        elif kind == 4:
            parts.append(f"{space}{{%{a} set v = {random_expression(rng, 2)} {b}%}}{space}{{{{ v }}}}")
        else:
            parts.append(f"{space}{{#{b} c {b}#}}{space}text")
    return "".join(parts) + rng.choice(["", "\n", " "])


def render(template):
    try:
        compiled = _compile_jinja_template(template)
    except SyntaxError:  # a `break` outside of a loop is found by Python itself
        return None
    except jinja2.exceptions.TemplateSyntaxError:
        return None
    try:
        return compiled.render(**CONTEXT)
    except Exception:
        return False


def main(path):
    rng = random.Random(0)
    drawn = [f"{{{{ {random_expression(rng)} }}}}" for _ in range(600)] + [random_template(rng) for _ in range(400)]
    cases = {"by_hand": [[t, render(t)] for t in BY_HAND], "drawn": [[t, render(t)] for t in drawn]}
    # Addresses and iterators print differently each time.
    for name, list_ in cases.items():
        cases[name] = [c for c in list_ if not (isinstance(c[1], str) and (" at 0x" in c[1] or "<generator" in c[1]))]
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"context": ' + json.dumps(CONTEXT) + ",\n")
        file.write(",\n".join(f'"{name}": [\n' + ",\n".join(json.dumps(c) for c in list_) + "\n]" for name, list_ in cases.items()))
        file.write("}\n")


main(sys.argv[1])
