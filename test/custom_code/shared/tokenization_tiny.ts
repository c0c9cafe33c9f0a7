// A tokenizer that the tests share with its code.
import { PreTrainedTokenizerFast } from "torchformers";

export class TinyTokenizerFast extends PreTrainedTokenizerFast {
  shout(text: string): string {
    return text.toUpperCase();
  }
}
