# Nothing is compiled by node-gyp: a prebuilt addon is used as it is, anything else is CMake's work.
# package.json says `"gypfile": false`, so that npm never comes here on its own.
{
  "targets": [
    {
      "target_name": "torchformers",
      "type": "none",
      "variables": {
        "prebuilt": "<!(node -p \"try { require('node-gyp-build').path('.') } catch { '' }\")",
      },
      "conditions": [
        ["prebuilt==''", {
          "actions": [
            {
              "action_name": "cmake",
              "inputs": ["CMakeLists.txt"],
              "outputs": ["build/native/stamp.json"],
              "action": ["node", "scripts/build_native.mjs"],
            },
          ],
        }],
      ],
    },
  ],
}
