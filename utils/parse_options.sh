# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # set by the script that sources this, or for it
# Parses a script's options, from one table. Before sourcing this, the script sets
#
#   usage="purpose and call of the script"                  shown by --help
#   options=("name|default|kind|help" ...)                  kind: text, number, flag (true or false), or a,b,c (one of these)
#   epilog="..."                                            shown by --help after the options; may be empty
#
# and calls parse_options "$@". Each option becomes a variable of its name. --name value and --name=value both work; a
# flag alone means true. `given[name]` is set for the options on the command line. `arguments` holds the first word that
# is not an option and all words after it. Values are never evaluated.

declare -A given=()
arguments=()

# Prints a one-line error about the command line and exits.
usage_error() {
  echo "${0##*/}: error: $* (see --help)" >&2
  exit 2
}

# Prints the number of insertions, deletions and replacements between two words.
edit_distance() {
  local a=$1 b=$2 i j cost best
  local -a row=() last=()
  for ((j = 0; j <= ${#b}; j++)); do row[j]=$j; done
  for ((i = 1; i <= ${#a}; i++)); do
    last=("${row[@]}")
    row[0]=$i
    for ((j = 1; j <= ${#b}; j++)); do
      cost=$((last[j - 1] + 1))
      [[ ${a:i-1:1} == "${b:j-1:1}" ]] && cost=${last[j - 1]}
      best=$((last[j] < row[j - 1] ? last[j] + 1 : row[j - 1] + 1))
      row[j]=$((cost < best ? cost : best))
    done
  done
  echo "${row[${#b}]}"
}

# Prints the option whose name is nearest to an unknown one.
nearest_option() {
  local entry name distance best=1000 near=
  for entry in "${options[@]}" "help|||"; do
    name=${entry%%|*}
    distance=$(edit_distance "$1" "$name")
    # An abbreviation is nearer than any other word.
    [[ $name == "$1"* ]] && distance=0
    if [ "$distance" -lt "$best" ]; then
      best=$distance near=$name
    fi
  done
  echo "--$near"
}

# Prints the entry of an option; fails for an unknown name.
option_entry() {
  local entry
  for entry in "${options[@]}"; do
    if [ "${entry%%|*}" = "$1" ]; then
      echo "$entry"
      return
    fi
  done
  return 1
}

check_value() {
  local name=$1 kind=$2 value=$3
  case $kind in
    text) ;;
    number) [[ $value =~ ^[0-9]{1,9}$ ]] || usage_error "--$name: found '$value', expected a whole number" ;;
    flag) [[ $value == true || $value == false ]] || usage_error "--$name: found '$value', expected true or false" ;;
    *) [[ ",$kind," == *",$value,"* && $value != *,* ]] || usage_error "--$name: found '$value', expected one of ${kind//,/, }" ;;
  esac
}

print_help() {
  local entry name default kind help
  printf '%s\n\nOptions, with their defaults in brackets:\n' "$usage"
  for entry in "${options[@]}"; do
    IFS='|' read -r name default kind help <<<"$entry"
    case $kind in
      text) kind=' TEXT' ;;
      number) kind=" N" ;;
      flag) kind=" true|false" ;;
      *) kind=" ${kind//,/|}" ;;
    esac
    printf '  --%s%s\n' "$name" "$kind"
    fold -s -w 72 <<<"$help${default:+ [$default]}" | sed 's/^/      /; s/ *$//'
  done
  printf '  --help\n      show this\n'
  [ -z "${epilog:-}" ] || printf '\n%s\n' "$epilog"
}

parse_options() {
  # Names with _, which no option has; otherwise the option could not be set here.
  local _entry _name _value _kind _word
  for _entry in "${options[@]}"; do
    IFS='|' read -r _name _value _kind _ <<<"$_entry"
    printf -v "$_name" '%s' "$_value"
  done
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h)
        print_help
        exit 0
        ;;
      --)
        shift
        break
        ;;
      --*) ;;
      *) break ;;
    esac
    _word=${1#--}
    _name=${_word%%=*}
    _entry=$(option_entry "$_name") || usage_error "unknown option --$_name (did you mean $(nearest_option "$_name")?)"
    IFS='|' read -r _ _ _kind _ <<<"$_entry"
    shift
    if [[ $_word == *=* ]]; then
      _value=${_word#*=}
    elif [ $# -gt 0 ] && ! is_option "$1"; then
      _value=$1
      shift
    elif [ "$_kind" = flag ]; then
      _value=true
    else
      usage_error "--$_name: found no value, expected one"
    fi
    check_value "$_name" "$_kind" "$_value"
    printf -v "$_name" '%s' "$_value"
    given[$_name]=1
  done
  arguments=("$@")
}

# True for a word that is an option; then the option before it lacks its value.
is_option() {
  [[ $1 == --* ]] || return 1
  local word=${1#--}
  [ "$word" = help ] || option_entry "${word%%=*}" >/dev/null
}
