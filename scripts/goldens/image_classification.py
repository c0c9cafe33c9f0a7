"""Adds test/fixtures/pipelines/image_classification.json: results of Python's pipeline("image-classification").

    python scripts/goldens/image_classification.py

Each case is a checkpoint of test/fixtures/models with the settings of an image processor of test/fixtures/preprocessing (the
test joins the two), a list of pictures, options, and the result.
"""

import json
import shutil
import tempfile
import warnings
from pathlib import Path

from transformers import pipeline

warnings.filterwarnings("ignore")
FIXTURES = Path(__file__).parents[2] / "test/fixtures"
PICTURES = FIXTURES / "preprocessing/assets"
CASES = [
    ("one", ["wide.jpg"], {"top_k": 3}, {}),
    ("all labels", ["square.png"], {"top_k": 1000}, {}),
    ("sigmoid", ["tall.png"], {"function_to_apply": "sigmoid"}, {}),
    ("none", ["rgba.png"], {"function_to_apply": "NONE", "top_k": 2}, {}),
    ("several labels at once", ["gray.png"], {}, {"problem_type": "multi_label_classification"}),
    ("regression", ["gray.png"], {}, {"problem_type": "regression"}),
    ("list", ["square.png", "tall.png", "wide.jpg"], {"top_k": 2}, {}),
    ("batch", ["square.png", "tall.png", "wide.jpg"], {"top_k": 2, "batch_size": 2}, {}),
]
MODELS = [
    ("models/vit", "preprocessing/image-vit"),
    ("models/resnet", "preprocessing/image-convnext"),
]

lines = []
for model, processor in MODELS:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(FIXTURES / model, folder, dirs_exist_ok=True)
        shutil.copy(FIXTURES / processor / "preprocessor_config.json", folder)
        for name, pictures, options, overrides in CASES:
            classify = pipeline("image-classification", folder, device="cpu")
            for key, value in overrides.items():
                setattr(classify.model.config, key, value)
            files = [str(PICTURES / picture) for picture in pictures]
            output = classify(files if len(files) > 1 else files[0], **options)
            case = {"name": name, "model": model, "processor": processor, "pictures": pictures, "options": options}
            lines.append(json.dumps({**case, "config": overrides, "output": output}))
out = FIXTURES / "pipelines/image_classification.json"
out.write_text("[\n" + ",\n".join(lines) + "\n]\n")
