"""Checks that Python transformers loads the tokenizers that we saved, and that they encode as the originals.

    node -e 'import("torchformers").then(async ({ AutoTokenizer }) => {
      const tokenizer = await AutoTokenizer.from_pretrained("test/fixtures/tokenizers/llama3");
      await tokenizer.save_pretrained("/tmp/saved/llama3");
    })'
    python scripts/parity_tokenizers.py test/fixtures/tokenizers /tmp/saved
"""

import json
import pathlib
import sys

from transformers import AutoTokenizer

originals, saved = map(pathlib.Path, sys.argv[1:3])
texts = json.loads((originals / "texts.json").read_text(encoding="utf-8"))
texts = texts if isinstance(texts, list) else texts["texts"]
failures = 0
for folder in sorted(path for path in saved.iterdir() if path.is_dir()):
    ours, theirs = (AutoTokenizer.from_pretrained(root / folder.name) for root in (saved, originals))
    same = {
        "class": type(ours).__name__ == type(theirs).__name__,
        "ids": all(ours(text)["input_ids"] == theirs(text)["input_ids"] for text in texts),
        "special tokens": ours.special_tokens_map == theirs.special_tokens_map,
        "length": len(ours) == len(theirs),
        "chat template": ours.chat_template == theirs.chat_template,
        "limits": (ours.model_max_length, ours.padding_side) == (theirs.model_max_length, theirs.padding_side),
    }
    wrong = [name for name, equal in same.items() if not equal]
    failures += len(wrong)
    print(f"{folder.name}: {'differs in ' + ', '.join(wrong) if wrong else 'same'}")
sys.exit(1 if failures else 0)
