"""Small chat templates of our own, each with one trait that the big ones have."""

from __future__ import annotations

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# the clock in a preamble, contents trimmed, no newline after the turn's end
CLOCK = (
    "{{ '<|im_start|>system\nToday is ' + strftime_now('%d %b %Y') + '<|im_end|>' }}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n\n' + m['content'] | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
# thinking is kept in the last turn only
THINKING = (
    "{% for m in messages %}{% set c = m['content'] %}"
    "{% if '</think>' in c and not loop.last %}{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + c + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# plain words for borders, the end token only after responses, roles must alternate
BRACKETS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% elif m['role'] == 'assistant' %}{{ ' ' + m['content'] + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant are served') }}{% endif %}{% endfor %}"
)
# no special token anywhere, the role has another name
PLAIN = (
    "{% for m in messages %}{{ ('model' if m['role'] == 'assistant' else m['role']) + ': ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'model: ' }}{% endif %}"
)
ALL = {"chatml": CHATML, "clock": CLOCK, "thinking": THINKING, "brackets": BRACKETS, "plain": PLAIN}
