"""TrainedModel models in use: prediction, video, Grad-CAM, exporting."""
