"""Counts test cases that really ran; tests/run calls it after each part.

  count_results.py TOTALS bazel NAME EVENTS      a Bazel build event file (JSON)
  count_results.py TOTALS script NAME STATUS LOG   'ok', 'not ok', 'skip' lines
  count_results.py TOTALS pytest NAME STATUS XML   a JUnit file
  count_results.py TOTALS summary                  prints the last line

TOTALS is a JSON file that grows from call to call.
"""

import json
import os
import re
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree


class Results:
    """Passed cases by number; failed and skipped ones by name."""

    def __init__(self, path):
        self.path = path
        self.passed, self.failed, self.skipped = 0, [], []
        if os.path.exists(path):
            with open(path) as f:
                self.passed, self.failed, self.skipped = json.load(f)

    def save(self):
        with open(self.path, "w") as f:
            json.dump([self.passed, self.failed, self.skipped], f)

    def num_cases(self):
        return self.passed + len(self.failed) + len(self.skipped)


def count_junit(results, name, xml):
    """Counts the cases of a gtest or pytest XML file."""
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        case_name = f"{name} {case.get('classname')}.{case.get('name')}"
        if case.find("failure") is not None or case.find("error") is not None:
            results.failed.append(case_name)
        elif (case.find("skipped") is not None
              or case.get("status") == "notrun"):
            results.skipped.append(case_name)
        else:
            results.passed += 1


def count_lines(results, name, log):
    """Counts the lines with which a script test reports its cases."""
    with open(log, errors="replace") as f:
        for line in f:
            match = re.match(r"(ok|not ok|skip) (.*)", line.rstrip())
            if not match:
                continue
            if match[1] == "ok":
                results.passed += 1
            else:
                cases = {"not ok": results.failed, "skip": results.skipped}
                cases[match[1]].append(f"{name} {match[2]}")


def count_checked(results, name, succeeded, count):
    """Counts cases by `count`, and holds them against the exit status.

    A program that failed without a failed case (it crashed, or a sanitizer
    spoke at its end) is one failed case; so is one that ran no case at all.
    """
    num_failed, num_cases = len(results.failed), results.num_cases()
    count()
    if not succeeded and len(results.failed) == num_failed:
        results.failed.append(f"{name}: exited with an error")
    elif results.num_cases() == num_cases:
        results.failed.append(f"{name}: ran no test")


def count_script(results, name, status, log):
    count_checked(results, name, status == "0",
                  lambda: count_lines(results, name, log))


def count_pytest(results, name, status, xml):
    def count():
        if os.path.exists(xml):
            count_junit(results, name, xml)
    count_checked(results, name, status == "0", count)


def count_bazel(results, config, events_path):
    """Counts every test target of a `bazel test`, and what did not build."""
    num_cases = results.num_cases()
    tests, broken = {}, set()
    for event in read_events(events_path):
        key = event["id"]
        if "testResult" in key:
            target = key["testResult"]["label"]
            tests.setdefault(target, []).append(event["testResult"])
        elif "targetCompleted" in key and "completed" in event:
            if not event["completed"].get("success"):
                broken.add(key["targetCompleted"]["label"])
        elif "pattern" in key and "aborted" in event:
            broken.add(" ".join(key["pattern"]["pattern"]))
        elif "configuredLabel" in key and "aborted" in event:
            broken.add(key["configuredLabel"]["label"])
        elif "unconfiguredLabel" in key and "aborted" in event:
            broken.add(key["unconfiguredLabel"]["label"])
    for target, runs in sorted(tests.items()):
        for run in runs:
            count_test_run(results, f"{config} {target}", run)
    for target in sorted(broken - set(tests)):
        results.failed.append(f"{config} {target}: did not build")
    if results.num_cases() == num_cases:
        results.failed.append(f"{config}: ran no test")


def read_events(path):
    if not os.path.exists(path):
        return
    with open(path) as f:
        for line in f:
            yield json.loads(line)


def count_test_run(results, name, run):
    outputs = {
        output["name"]: urllib.parse.unquote(output["uri"][len("file://"):])
        for output in run.get("testActionOutput", [])
        if output.get("uri", "").startswith("file://")
    }

    def count():
        xml, log = outputs.get("test.xml"), outputs.get("test.log")
        if xml and ElementTree.parse(xml).getroot().get("name") == "AllTests":
            count_junit(results, name, xml)
        elif log:  # Not written by GoogleTest: a script, or a crash.
            count_lines(results, name, log)

    count_checked(results, name, run["status"] == "PASSED", count)


def print_summary(results):
    """Prints names, then the last line; returns the exit status."""
    for name in results.skipped:
        print("skipped:", name)
    for name in results.failed:
        print("FAILED:", name)
    line = f"{results.passed} passed, {len(results.failed)} failed"
    if results.skipped:
        line += f", {len(results.skipped)} skipped"
    print(line)
    return 1 if results.failed or not results.passed else 0


def main(arguments):
    results = Results(arguments[0])
    if arguments[1] == "summary":
        return print_summary(results)
    count = {"bazel": count_bazel, "script": count_script,
             "pytest": count_pytest}[arguments[1]]
    count(results, *arguments[2:])
    results.save()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
