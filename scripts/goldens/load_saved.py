"""Loads folders that torchformers saved in the Python reference: fails unless nothing is missing, unexpected or mismatched.

    python scripts/goldens/load_saved.py DIR [DIR ...]

Needs transformers 5.23.0. The tests need no Python: they compare the files with those that the reference wrote.
"""

import sys

from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

for folder in sys.argv[1:]:
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    found = {name: keys for name, keys in info.items() if keys}
    assert not found, f"{folder}: {found}"
    assert AutoConfig.from_pretrained(folder).to_dict() == model.config.to_dict()
    GenerationConfig.from_pretrained(folder)
    print(f"{folder}: {type(model).__name__}, {model.num_parameters()} parameters, nothing missing")
