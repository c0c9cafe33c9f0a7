// Image processors of ViT: to a square, to numbers around 0.
import { PilBackend, TorchvisionBackend } from "../../processing/image/image_processing_backends.ts";
import {
  IMAGENET_STANDARD_MEAN,
  IMAGENET_STANDARD_STD,
  PILImageResampling,
} from "../../processing/image/image_utils.ts";

export class ViTImageProcessor extends TorchvisionBackend {
  static override readonly resample = PILImageResampling.BILINEAR;
  static override readonly image_mean = IMAGENET_STANDARD_MEAN;
  static override readonly image_std = IMAGENET_STANDARD_STD;
  static override readonly size = { height: 224, width: 224 };
  static override readonly do_resize = true;
  static override readonly do_rescale = true;
  static override readonly do_normalize = true;
}

export class ViTImageProcessorPil extends PilBackend {
  static override readonly resample = PILImageResampling.BILINEAR;
  static override readonly image_mean = IMAGENET_STANDARD_MEAN;
  static override readonly image_std = IMAGENET_STANDARD_STD;
  static override readonly size = { height: 224, width: 224 };
  static override readonly do_resize = true;
  static override readonly do_rescale = true;
  static override readonly do_normalize = true;
}
