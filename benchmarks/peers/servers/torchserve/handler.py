"""What TorchServe's documentation has one write: a subclass of its base handler."""

import json
import logging

import served
from ts.torch_handler.base_handler import BaseHandler


class Handler(BaseHandler):
    def initialize(self, context):
        logging.getLogger().setLevel(logging.WARNING)
        super().initialize(context)
        self.model = served.Model()  # the same threads as everybody; its own takes all cores

    def preprocess(self, data):
        bodies = [item.get("body") or item.get("data") for item in data]
        return [row for body in bodies for row in body["inputs"]]

    def inference(self, data):
        return self.model.probabilities(data)

    def postprocess(self, data):
        return [json.dumps({"outputs": [output]}) for output in served.outputs(data)]
