"""Train a tiny language model on a made-up language with Transformers' Trainer and log it.

pip install 'transformers[torch]'
python examples/transformers_tiny_model.py runs/transformers
"""

import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from sm_tblog.adapters.transformers import TensorBoardCallback

logdir = sys.argv[1] if sys.argv[1:] else "runs/transformers"


class Counting(torch.utils.data.Dataset):
    """Sentences of eight consecutive words: each word is the successor of the one before it."""

    def __len__(self):
        return 64

    def __getitem__(self, i):
        words = (torch.arange(8) + i) % 16
        return {"input_ids": words, "labels": words}


model = GPT2LMHeadModel(
    GPT2Config(
        vocab_size=16,
        n_positions=8,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
)
with tempfile.TemporaryDirectory() as output:
    arguments = TrainingArguments(
        output,
        num_train_epochs=3,
        learning_rate=1e-2,
        logging_steps=2,
        eval_strategy="epoch",
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(
        model,
        arguments,
        train_dataset=Counting(),
        eval_dataset=Counting(),
        callbacks=[TensorBoardCallback(logdir)],
    )
    trainer.train()
