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

# the traits of the big families, several to a template
LLAMA = (
    "{{- bos_token }}{%- if not date_string is defined %}{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set told = messages[0]['content'] | trim %}{%- set talk = messages[1:] %}"
    "{%- else %}{%- set told = '' %}{%- set talk = messages %}{%- endif %}"
    "{{- '<|head|>system<|body|>\n\nToday Date: ' + date_string + '\n\n' }}"
    "{%- if tools is not none %}{{- 'Answer with a call of one of:\n' }}{%- for t in tools %}{{- t | tojson(indent=2) + '\n' }}"
    "{%- endfor %}{%- endif %}{{- told + '<|im_end|>' }}"
    "{%- for m in talk %}{%- if 'tool_calls' in m and m.tool_calls %}{%- set call = m.tool_calls[0].function %}"
    '{{- \'<|head|>assistant<|body|>\n\n<|call|>{"name": "\' + call.name + \'", "parameters": \' }}'
    "{{- call.arguments | tojson + '}' }}{{- '<|im_end|>' }}"
    "{%- elif m.role == 'tool' %}{{- '<|head|>ipython<|body|>\n\n' + m.content | tojson + '<|im_end|>' }}"
    "{%- else %}{{- '<|head|>' + m['role'] + '<|body|>\n\n' + m['content'] | trim + '<|im_end|>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|head|>assistant<|body|>\n\n' }}{%- endif %}"
)
QWEN = (
    "{%- if tools %}{{- '<|im_start|>system\n' }}{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}"
    "{{- '# Tools\n<tools>' }}{%- for t in tools %}{{- '\n' ~ (t | tojson) }}{%- endfor %}{{- '\n</tools><|im_end|>\n' }}"
    "{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{%- endif %}"
    "{%- set ns = namespace(last=0) %}"
    "{%- for m in messages %}{%- if m.role == 'user' %}{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set body = m.content if m.content is string else '' %}"
    "{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "{{- '<|im_start|>' + m.role + '\n' + body + '<|im_end|>\n' }}"
    "{%- elif m.role == 'assistant' %}{%- set thought = '' %}"
    "{%- if m.reasoning_content is string %}{%- set thought = m.reasoning_content %}"
    "{%- elif '</think>' in body %}{%- set thought = body.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}"
    "{%- set body = body.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>assistant\n' }}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) %}"
    "{{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' + body.lstrip('\n') }}{%- else %}{{- body }}{%- endif %}"
    "{%- for call in m.tool_calls or [] %}{{- '\n' if (loop.first and body) or not loop.first else '' }}"
    '{{- \'<tool_call>\n{"name": "\' + call.function.name + \'", "arguments": \' }}'
    "{{- call.function.arguments | tojson + '}\n</tool_call>' }}"
    "{%- endfor %}{{- '<|im_end|>\n' }}"
    "{%- elif m.role == 'tool' %}{{- '<|im_start|>user\n<tool_response>\n' + body + '\n</tool_response><|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
MISTRAL = (
    "{%- if messages[0]['role'] == 'system' %}{%- set told = messages[0]['content'] %}{%- set talk = messages[1:] %}"
    "{%- else %}{%- set talk = messages %}{%- endif %}"
    "{%- set ns = namespace(turn=0) %}{%- for m in talk %}{%- if m.role in ['user', 'assistant'] and not m.tool_calls %}"
    "{%- if (m.role == 'user') != (ns.turn % 2 == 0) %}{{- raise_exception('user and assistant must take turns') }}{%- endif %}"
    "{%- set ns.turn = ns.turn + 1 %}{%- endif %}{%- endfor %}"
    "{%- set users = talk | selectattr('role', 'equalto', 'user') | list %}"
    "{{- bos_token }}{%- for m in talk %}{%- if m.role == 'user' %}"
    "{%- if tools is not none and m == users[-1] %}{{- '[TOOLS] ' + tools | tojson + '[/TOOLS]' }}{%- endif %}"
    "{%- if loop.index0 == ns.last or m == users[-1] and told is defined %}{{- '[INST] ' + told + '\n\n' + m.content + '[/INST]' }}"
    "{%- else %}{{- '[INST] ' + m.content + '[/INST]' }}{%- endif %}"
    "{%- elif m.tool_calls %}{{- '[CALLS] [' }}{%- for call in m.tool_calls %}{{- call.function | tojson }}"
    "{{- ', ' if not loop.last else ']' + eos_token }}{%- endfor %}"
    "{%- elif m.role == 'assistant' %}{{- ' ' + m.content | trim + eos_token }}"
    "{%- elif m.role == 'tool' %}{{- '[RESULT] ' + m.content + '[/RESULT]' }}{%- endif %}{%- endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set told = messages[0]['content'] + '\n\n' %}{% set talk = messages[1:] %}"
    "{% else %}{% set told = '' %}{% set talk = messages %}{% endif %}"
    "{% for m in talk %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{{ '<|im_start|>' + ('model' if m['role'] == 'assistant' else m['role']) + '\n' + (told if loop.first else '') }}"
    "{{ m['content'] | trim + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>model\n' }}{% endif %}"
)
FAMILIES = {"llama": LLAMA, "qwen": QWEN, "mistral": MISTRAL, "gemma": GEMMA}
SPECIAL = ("<s>", "<|head|>", "<|body|>", "<|call|>", "<|im_start|>", "<|im_end|>", "</s>")
PLAIN_ADDED = ("<think>", "</think>", "<tool_call>", "</tool_call>")
