"""The handler for the standard library's ``logging``."""

import logging
import os
import re
import signal
import threading

import pytest

from sm_tblog import InvalidTypeError, StoreError, Writer
from sm_tblog.adapters import logging as adapter
from sm_tblog.adapters.logging import TensorBoardHandler


@pytest.fixture
def logger():
    logger = logging.Logger("of.a.test")  # noqa: LOG001 - one that nothing else knows
    yield logger
    for handler in logger.handlers:
        handler.close()


@pytest.fixture
def texts(load_run, tmp_path):
    def texts(tag="log", folder=tmp_path):
        return [
            (event.step, event.tensor_proto.string_val[0].decode().split("\n"))
            for event in load_run(folder).Tensors(tag)
        ]

    return texts


def test_records_are_lines_of_code(logger, texts, tmp_path):
    handler = TensorBoardHandler(tmp_path)
    logger.addHandler(handler)
    logger.info("a *star*, <b>bold</b> and %d", 3)
    logger.debug("```")
    handler.flush()
    ((step, lines),) = texts()
    assert step == 2
    stamp = r"    \d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}"
    assert re.fullmatch(stamp + r" INFO of\.a\.test: a \*star\*, <b>bold</b> and 3", lines[0])
    assert re.fullmatch(stamp + " DEBUG of.a.test: ```", lines[1])


def test_tensorboard_shows_them_as_they_are(logger, tmp_path, load_run):
    text_plugin = pytest.importorskip("tensorboard.plugins.text.text_plugin")
    handler = TensorBoardHandler(tmp_path)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.info("| a | table |\n\n# <i>no</i> `head`")
    handler.flush()
    value = load_run(tmp_path).Tensors("log")[0].tensor_proto.string_val[0]
    html = text_plugin.plugin_util.markdown_to_safe_html(value)
    assert html.startswith("<pre><code>| a | table |")
    assert "# &lt;i&gt;no&lt;/i&gt; `head`" in html


def test_an_error_makes_a_text_at_once_with_its_traceback(logger, texts, tmp_path):
    with Writer(tmp_path) as writer:
        logger.addHandler(TensorBoardHandler(writer))
        logger.info("before")
        try:
            {}["no such key"]
        except KeyError:
            logger.exception("stopped")
        writer.flush()
        ((step, lines),) = texts()
    assert step == 2
    assert "    KeyError: 'no such key'" in lines


def test_a_text_has_so_many_lines_at_most(logger, texts, tmp_path):
    handler = TensorBoardHandler(tmp_path, capacity=3, interval=3600)
    logger.addHandler(handler)
    for i in range(7):
        logger.info("record %d", i)
    handler.flush()
    assert [(step, len(lines)) for step, lines in texts()] == [(3, 3), (6, 3), (7, 1)]


def test_records_become_a_text_in_time(logger, texts, tmp_path):
    with Writer(tmp_path) as writer:
        handler = TensorBoardHandler(writer, interval=0.01)
        logger.addHandler(handler)
        logger.info("one")
        timer = handler._timer
        assert timer.daemon
        timer.join()
        writer.flush()
        assert [step for step, _ in texts()] == [1]
        logger.info("two")
        handler._timer.join()
        writer.flush()
        assert [step for step, _ in texts()] == [1, 2]


def test_levels_tags_and_steps_are_the_users(logger, texts, tmp_path):
    handler = TensorBoardHandler(tmp_path, tag="log/rank 0", level="WARNING", step=lambda: 40)
    logger.addHandler(handler)
    logger.info("no")
    logger.warning("yes")
    handler.flush()
    assert [step for step, _ in texts("log/rank 0")] == [40]


def test_records_of_this_library_are_passed_over(logger, tmp_path):
    handler = TensorBoardHandler(tmp_path / "run")
    for name in ("sm_tblog", "sm_tblog.part"):
        ours = logging.Logger(name)  # noqa: LOG001 - one that nothing else knows
        ours.addHandler(handler)
        ours.error("no")
    logger.addHandler(handler)
    thread = threading.Thread(target=logger.error, args=["no"], name="sm_tblog upload")
    thread.start()
    thread.join()
    handler.close()
    assert not (tmp_path / "run").exists()
    other = logging.Logger("sm_tblogger")  # noqa: LOG001 - one that nothing else knows
    other.addHandler(handler)
    other.error("yes")
    assert (tmp_path / "run").exists()
    handler.close()


def test_a_fault_of_the_writer_does_not_wait_for_itself(logger, tmp_path, store_at):
    # The root logger has the handler. The worker thread logs a store failure to it while another
    # thread holds the handler's lock and waits for the worker thread.
    def append(store, data):
        raise StoreError("no more room")

    url = store_at(tmp_path, append=append)
    handler = TensorBoardHandler(url, max_bytes=2000, interval=3600)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        for _ in range(30):
            logging.getLogger("of.a.test").error("x" * 500)
        with handler.lock:
            handler._target.flush()  # hangs if the worker waits for the lock
        assert handler._target.writer.stats().errors
    finally:
        root.removeHandler(handler)
        handler.close()


def test_what_cannot_be_formatted_is_said_as_by_every_handler(logger, tmp_path, capsys):
    logger.addHandler(TensorBoardHandler(tmp_path))
    logger.info("%d", "no number")
    assert "--- Logging error ---" in capsys.readouterr().err


SCRIPT = """
import logging, sys
from sm_tblog.adapters.logging import TensorBoardHandler

logging.basicConfig(level="INFO", handlers=[TensorBoardHandler(sys.argv[1])])
logging.info("the last words")
"""


def test_the_end_of_the_script_stores_the_last_records(run_script, tmp_path, texts):
    done = run_script(SCRIPT, tmp_path)
    assert done.returncode == 0, done.stderr
    ((_, lines),) = texts()
    assert lines[0].endswith("INFO root: the last words")


def test_it_is_configured_as_any_handler(tmp_path, texts):
    import logging.config

    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "handlers": {
                "board": {
                    "class": "sm_tblog.adapters.logging.TensorBoardHandler",
                    "logdir_or_writer": str(tmp_path),
                    "level": "INFO",
                }
            },
            "loggers": {"of.a.config": {"handlers": ["board"], "level": "INFO"}},
        }
    )
    logger = logging.getLogger("of.a.config")
    logger.info("configured")
    (handler,) = logger.handlers
    handler.close()
    logger.removeHandler(handler)
    assert texts()[0][1][0].endswith("configured")


def test_other_processes_log_nothing(logger, tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    logger.addHandler(TensorBoardHandler(tmp_path / "run"))
    logger.error("no")
    assert not (tmp_path / "run").exists()


def test_what_is_neither_folder_nor_writer_is_refused():
    with pytest.raises(InvalidTypeError, match="expected a log directory or a Writer"):
        TensorBoardHandler(3)
    assert adapter.__all__ == ["TensorBoardHandler"]


PROCESSES = """
import logging, multiprocessing, os, signal, sys, warnings
from sm_tblog.adapters.logging import TensorBoardHandler

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from Python 3.12
logger = logging.getLogger("of.a.test")
logger.setLevel("INFO")

def begin(folder):
    handler = TensorBoardHandler(folder, interval=3600)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    return handler

def log(number):
    logger.info("record %d", number)

if __name__ == "__main__":
    folder = sys.argv[1]
    context = multiprocessing.get_context("fork")
    begin(folder)
"""

ENDS = {
    "a child ends": """
    log(0)
    process = context.Process(target=log, args=(1,))
    process.start()
    process.join()
""",
    "a pool ends": """
    with context.Pool(1) as pool:
        pool.map(log, range(2))
""",
    "a child of a fork ends": """
    log(0)
    pid = os.fork()
    if pid == 0:
        log(1)
        logging.shutdown()
        os._exit(0)
    os.waitpid(pid, 0)
""",
    "SIGTERM": """
    logging.getLogger("of.a.test").handlers[0].close()
    logger.handlers.clear()
    from sm_tblog import Writer
    writer = Writer(folder)
    begin(writer)
    log(0)
    log(1)
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
""",
}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("kind", ENDS)
def test_every_record_is_logged_once_however_a_process_ends(tmp_path, run_script, texts, kind):
    done = run_script(PROCESSES + ENDS[kind], tmp_path)
    assert (done.returncode, done.stderr) == (-signal.SIGTERM if kind == "SIGTERM" else 0, "")
    lines = [line.strip() for _, text in texts() for line in text]
    assert sorted(lines) == ["record 0", "record 1"]
