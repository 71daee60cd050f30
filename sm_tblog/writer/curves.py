"""Precision-recall curves."""

from __future__ import annotations

from typing import Any

from sm_tblog.arrays.convert import snapshot
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_tag
from sm_tblog.writer.base import BaseWriter

__all__ = ["CurveMethods"]

_build_pr_curve = builder("pr_curve.pr_curve_value")
_build_raw_pr_curve = builder("pr_curve.raw_pr_curve_value")


class CurveMethods(BaseWriter):
    """What logs curves of a classifier's quality."""

    def add_pr_curve(
        self,
        tag: str,
        labels: Any,
        predictions: Any,
        global_step: Any = None,
        num_thresholds: int = 127,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log the precision-recall curve of a binary classifier.

        The arrays are copied, on their own devices; counting is the worker's. A prediction that is
        NaN is left out, and said once for the tag.

        Args:
            tag: the curve's name, taken as it is.
            labels: the truth: bools, or 0 and 1; any shape, library and device. A number between
                counts as that much of a positive.
            predictions: probabilities from 0 to 1, of the same shape. At threshold t, those that
                are at least t count as positive.
            global_step: any integer; by default ``writer.step``.
            num_thresholds: how many thresholds, evenly spaced from 0 to 1; 2 or more. The peers
                write 127 at most; this writer takes what is asked for.
            weights: what each sample counts for: one number, or an array that broadcasts to the
                labels. TensorBoard cuts weighted counts to integers where it shows them.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: the shapes do not agree, a label or prediction is not from 0 to 1,
                a weight is negative or not finite, or there are fewer than two thresholds. What is
                on a device is not waited for: its numbers are looked at by the worker.
        """
        if self._enabled:
            check_tag(tag)
            from sm_tblog.summary.pr_curve import check_samples, check_thresholds

            count = check_thresholds(num_thresholds, tag)
            truth, probable = snapshot(labels, tag), snapshot(predictions, tag)
            worth = None if weights is None else snapshot(weights, tag)
            check_samples(truth, probable, worth, tag)
            nbytes = truth.nbytes + probable.nbytes + (0 if worth is None else worth.nbytes)
            args = (truth, probable, count, worth)
            self._put(tag, _build_pr_curve, args, global_step, walltime, nbytes)

    def add_pr_curve_raw(
        self,
        tag: str,
        true_positive_counts: Any,
        false_positive_counts: Any,
        true_negative_counts: Any,
        false_negative_counts: Any,
        precision: Any,
        recall: Any,
        global_step: Any = None,
        num_thresholds: int | None = None,
        weights: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log a precision-recall curve that was counted elsewhere.

        The arrays hold a number for each threshold, from 0 up to 1, evenly spaced.

        Args:
            tag: the curve's name, taken as it is.
            true_positive_counts: shape (thresholds,).
            false_positive_counts: shape (thresholds,).
            true_negative_counts: shape (thresholds,).
            false_negative_counts: shape (thresholds,).
            precision: shape (thresholds,).
            recall: shape (thresholds,).
            global_step: any integer; by default ``writer.step``.
            num_thresholds: how many thresholds there are; by default as many as counts.
            weights: the four counts are multiplied by this: one number, or shape (thresholds,).
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: the arrays are not as long as each other, or as ``num_thresholds``
                says, or the weights do not fit them.
        """
        if self._enabled:
            check_tag(tag)
            from sm_tblog.summary.pr_curve import check_raw_curve

            rows = [
                snapshot(row, tag)
                for row in (
                    true_positive_counts,
                    false_positive_counts,
                    true_negative_counts,
                    false_negative_counts,
                    precision,
                    recall,
                )
            ]
            worth = None if weights is None else snapshot(weights, tag)
            check_raw_curve(rows, num_thresholds, worth, tag)
            nbytes = sum(row.nbytes for row in rows)
            self._put(tag, _build_raw_pr_curve, (rows, worth), global_step, walltime, nbytes)
