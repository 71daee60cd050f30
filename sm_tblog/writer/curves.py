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
    """Methods that log precision-recall curves."""

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

        The call copies the arrays, on their own devices; the worker thread counts. Predictions that
        are NaN are left out, with one warning per tag.

        Args:
            tag: the curve's name, used as is.
            labels: the true labels: bools, or 0 and 1; any shape, library and device. A number in
                between counts as that fraction of a positive.
            predictions: probabilities from 0 to 1, of the same shape. At threshold t, those that
                are at least t count as positive.
            global_step: any integer; by default ``writer.step``.
            num_thresholds: the number of thresholds, evenly spaced from 0 to 1; 2 or more. torch's
                and tensorboardX's writers write at most 127; this writer writes as many as
                requested.
            weights: the weight of each sample: one number, or an array that broadcasts to the
                labels. TensorBoard truncates weighted counts to integers when it shows them.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the shapes do not match, a label or prediction is not from 0 to 1, a
                weight is negative or not finite, or there are fewer than two thresholds. Numbers on
                a device are checked on the worker thread instead, because the call does not wait
                for the device.
        """
        if self._enabled:
            check_tag(tag)
            from sm_tblog.summary.pr_curve import check_samples, check_thresholds

            count = check_thresholds(num_thresholds, tag)
            label_copy, prediction_copy = snapshot(labels, tag), snapshot(predictions, tag)
            weight_copy = None if weights is None else snapshot(weights, tag)
            check_samples(label_copy, prediction_copy, weight_copy, tag)
            copies = (label_copy, prediction_copy, weight_copy)
            nbytes = sum(copy.nbytes for copy in copies if copy is not None)
            args = (label_copy, prediction_copy, count, weight_copy)
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

        Each array contains one number per threshold; the thresholds are evenly spaced and ascend
        from 0 to 1.

        Args:
            tag: the curve's name, used as is.
            true_positive_counts: shape (thresholds,).
            false_positive_counts: shape (thresholds,).
            true_negative_counts: shape (thresholds,).
            false_negative_counts: shape (thresholds,).
            precision: shape (thresholds,).
            recall: shape (thresholds,).
            global_step: any integer; by default ``writer.step``.
            num_thresholds: accepted for compatibility with torch's and tensorboardX's writers: the
                number of thresholds is the number of counts. A warning is logged once per tag if it
                differs.
            weights: factor for the four counts: one number, or shape (thresholds,).
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the arrays differ in length from each other, ``num_thresholds`` is
                less than 2, or the weights do not fit the arrays.
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
            weight_copy = None if weights is None else snapshot(weights, tag)
            check_raw_curve(rows, num_thresholds, weight_copy, tag)
            nbytes = sum(row.nbytes for row in rows)
            args = (rows, weight_copy, num_thresholds)
            self._put(tag, _build_raw_pr_curve, args, global_step, walltime, nbytes)
