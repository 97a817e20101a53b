"""Function words of five languages, for the stop-word signal (published, used by no rule)."""

_WORDS = {
    "en": "a about above after again all also am an and any are as at be because been before being below between both but by can "
    "could did do does doing down during each few for from further had has have having he her here hers him his how i if in into "
    "is it its itself just me more most my no nor not now of off on once only or other our out over own same she should so some "
    "such than that the their them then there these they this those through to too under until up very was we were what when "
    "where which while who whom why will with would you your",
    "fr": "à alors au aucun aussi autre aux avant avec avoir car ce cela ces cet cette ceux chaque comme comment dans de des du donc "
    "elle elles en encore est et eu fait faut ici il ils je la le les leur leurs lui ma mais me même mes moi mon ne ni nos notre "
    "nous on ont ou où par pas peu peut plus pour pourquoi qu que quel qui sa sans se ses si son sont sur ta te tes ton tous tout "
    "très tu un une vos votre vous y",
    "es": "a al algo antes aquí así aunque cada como con contra cual cuando de del desde donde dos el él ella ellas ellos en entre "
    "era es esa ese eso esta está este esto fue ha hasta hay la las le les lo los más me mi mientras muy nada ni no nos nosotros "
    "o otra otro para pero por porque qué que quien se ser si sí sin sobre solo son su sus también te tiene todo tu un una uno y ya yo",
    "it": "a ad agli ai al alla alle allo anche avere che chi ci come con contro cui da dagli dai dal dalla dei del della delle dello "
    "di dove e è ed era fra gli ha hanno ho i il in io la le lei li lo loro lui ma mi mia mio ne negli nei nel nella noi non nostro "
    "o ogni per perché più qua quale quando quello questa questo se sei si sia sono su sua sul sulla suo te ti tra tu tutti tutto "
    "un una uno voi",
    "de": "aber alle als also am an auch auf aus bei bin bis bist da damit dann das dass dein dem den der des die dies diese dir doch "
    "dort du durch ein eine einem einen einer eines er es euer für hat hatte ich ihm ihn ihr im in ist ja jede jetzt kann kein man "
    "mein mich mir mit muss nach nicht noch nun nur ob oder ohne sehr sein seine sich sie sind so soll über um und uns unser unter "
    "vom von vor war was weil wenn wer wie wir wird wo zu zum zur zwischen",
}
STOP_WORDS: dict[str, frozenset[str]] = {language: frozenset(text.split()) for language, text in _WORDS.items()}
